#!/usr/bin/env bash
# Follows a folder without holding a connection, for cron: follow.sh HANDLER
#
# HANDLER is a program of yours. It is called as `HANDLER list` when it must list the folder
# itself, and as `HANDLER changes` with one JSON change a line to read. Until it has succeeded the
# cursor stays where it is, so what was cut off comes again.
#
# Needs curl, jq and flock (util-linux), and in the environment:
#   FOLLOW_ADDRESS  such as https://files.example.com
#   FOLLOW_TOKEN    an access token
#   FOLLOW_FOLDER   such as cloudreve://my/docs; unset: cloudreve://my
#   FOLLOW_CURSOR   the file that keeps the cursor; unset: events.cursor
#   FOLLOW_WAIT     seconds to wait for a change, at most 50; unset: 0
#   FOLLOW_CLIENT   a UUID, the same one for ever: what it writes itself is not told to it; may be unset
# Exits with 75 (try again later) when the server is away or busy.
set -euo pipefail

handler=${1:?usage: follow.sh HANDLER}
file=${FOLLOW_CURSOR:-events.cursor}
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

exec 9>>"$file.lock"
flock --nonblock 9 || exit 0 # the run before this one is still at it

ask() { # [CURSOR]: leaves the document in $answer, prints the status
    local client=()
    [[ -z ${FOLLOW_CLIENT:-} ]] || client=(--header "X-Cr-Client-Id: $FOLLOW_CLIENT")
    # The token goes by standard input: arguments are everybody's to read.
    curl --silent --show-error --get --max-time 120 --output "$answer" --write-out '%{http_code}' \
        --header @- "${client[@]}" \
        --data-urlencode "uri=${FOLLOW_FOLDER:-cloudreve://my}" --data-urlencode "cursor=${1:-}" \
        --data-urlencode "wait=${1:+${FOLLOW_WAIT:-0}}" \
        "$FOLLOW_ADDRESS/api/v4/file/events/changes" <<<"Authorization: Bearer $FOLLOW_TOKEN" \
        || exit 75
}

keep() { # the answer's cursor, whole or not at all
    jq --raw-output --exit-status .data.cursor "$answer" >"$file.new"
    mv "$file.new" "$file"
}

cursor=$(cat "$file" 2>/dev/null || true)
while :; do
    status=$(ask "$cursor")
    case $status in
    200) ;;
    410) jq --raw-output '"list again: \(.data.reason)"' "$answer" >&2 ;;
    429 | 500 | 502 | 503 | 504) exit 75 ;;
    *)
        jq --raw-output '"refused: \(.msg) (\(.correlation_id))"' "$answer" >&2
        exit 1
        ;;
    esac
    # A cursor comes first and the listing after it: what happens meanwhile is told twice, not never.
    if [[ $status == 410 || -z $cursor ]]; then
        "$handler" list </dev/null
    elif jq --exit-status '.data.events | length > 0' "$answer" >/dev/null; then
        jq --compact-output '.data.events[]' "$answer" | "$handler" changes
    fi
    keep
    cursor=$(cat "$file")
    [[ $(jq .data.more "$answer") == true ]] || break
done
