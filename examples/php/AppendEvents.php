<?php

declare(strict_types=1);

/**
 * Appends changes by HTTP, where the database is out of reach: copy this class into your code.
 *
 * Call it after the transaction that changed the files. Keep what it throws on in a queue of yours,
 * and append that again, with the same keys.
 */
final class AppendEvents
{
    /** No answer, and what a proxy or a server says that will soon be back. */
    private const COMES_BACK = [0, 429, 502, 503, 504];

    public int $tries = 0;

    /**
     * @param string $url https://files.example/api/v4/file/events
     * @param string $token of the user whose changes these are, or of a service
     * @param float $patience seconds in which to try again
     */
    public function __construct(
        private string $url, private string $token, private float $patience = 60,
    ) {
    }

    /**
     * Returns what was accepted; with `wait` in the URL, also where it stands.
     *
     * @param list<array<string, mixed>> $changes each with an event_key of its own
     * @return array{accepted: int, first?: int, last?: int}
     */
    public function append(array $changes): array
    {
        $until = microtime(true) + $this->patience;
        $body = implode("\n", array_map(self::line(...), $changes));
        for ($pause = 0.1; ; $pause = min(2 * $pause, 5)) {
            $this->tries++;
            [$status, $answer] = $this->post($body);
            if ($status === 201) {
                return json_decode($answer, true, 16, JSON_THROW_ON_ERROR)['data'];
            }
            // Without an answer nobody knows whether it was written. The keys make that the same.
            if (!in_array($status, self::COMES_BACK, true) || microtime(true) > $until) {
                throw new RuntimeException("not appended: $status $answer");
            }
            usleep((int) (1e3 * $pause * random_int(500, 1500)));
        }
    }

    /** @param array<string, mixed> $change */
    private static function line(array $change): string
    {
        if (($change['event_key'] ?? '') === '') {
            throw new LogicException('no event_key: a retry would write the change twice');
        }
        return json_encode($change, JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE);
    }

    /** @return array{int, string} status, 0 without an answer, and the answer */
    private function post(string $body): array
    {
        $request = curl_init($this->url);
        curl_setopt_array($request, [
            CURLOPT_POSTFIELDS => $body,
            CURLOPT_HTTPHEADER => [
                "Authorization: Bearer {$this->token}",
                'Content-Type: application/x-ndjson',
            ],
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_CONNECTTIMEOUT => 5,
            CURLOPT_TIMEOUT => 70,
        ]);
        $answer = curl_exec($request);
        $status = $answer === false ? 0 : curl_getinfo($request, CURLINFO_RESPONSE_CODE);
        return [$status, $answer === false ? curl_error($request) : $answer];
    }
}
