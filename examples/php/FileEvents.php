<?php

declare(strict_types=1);

/**
 * Writes one row into file_event_outbox: copy this class into your code.
 *
 * Call it in the transaction that changes the file, after your own UPDATE, INSERT or DELETE.
 */
final class FileEvents
{
    private const INSERT = 'INSERT INTO file_event_outbox (user_id, type, file_id, fs, from_path,'
        . ' to_path, is_folder, client_id, actor_id, event_key, meta)'
        . ' VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)';

    /**
     * @param string $type create, modify, rename or delete
     * @param string $path decoded and absolute, '/docs/plan.md'; of a rename: the old path
     * @param string|null $to the new path; of a rename only
     * @param string|null $clientId the X-Cr-Client-Id header of the request, as it came
     * @param string|null $actorId who did it, when it was not the owner of the file
     * @param string|null $key the same text again when the same change is written again
     * @param array<string, mixed>|null $meta what an auditor may want to know
     */
    public static function record(
        PDO $db, string $userId, string $type, string $fileId, string $path, ?string $to = null,
        bool $isFolder = false, ?string $clientId = null, ?string $actorId = null,
        ?string $key = null, ?array $meta = null, string $fs = 'my',
    ): void {
        if (!$db->inTransaction()) {
            throw new LogicException('no transaction: the change and its row must commit together');
        }
        $json = $meta === null ? null : json_encode($meta, JSON_THROW_ON_ERROR);
        $row = [$userId, $type, $fileId, $fs, $path, $to, (int) $isFolder,
            self::uuid($clientId), $actorId, $key, $json];
        $statement = $db->prepare(self::INSERT);
        if ($statement === false || !$statement->execute($row)) {
            throw new RuntimeException('the change was not recorded: roll back');
        }
    }

    /** The header is the client's word: a UUID in any usual form, or it counts as absent. */
    private static function uuid(?string $text): ?string
    {
        $hex = str_replace(['urn:uuid:', '{', '}', '-'], '', strtolower(trim($text ?? '')));
        return preg_match('/^[0-9a-f]{32}$/D', $hex) === 1
            ? vsprintf('%s%s-%s-%s-%s-%s%s%s', str_split($hex, 4)) : null;
    }
}
