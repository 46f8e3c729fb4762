<?php

declare(strict_types=1);

require_once __DIR__ . '/FileEvents.php';

/** A tiny file app: one user's tree in the table `files` (examples/sql/files-*.sql). */
final class Files
{
    /** @var list<array{type: string, file_id: string, from: string, to: string}> */
    private array $changes = [];

    private int $keys = 0;

    public function __construct(
        private readonly PDO $db,
        private readonly string $userId,
        private readonly ?string $clientId = null,
        private readonly ?string $actorId = null,
        private readonly ?string $key = null,
    ) {
    }

    /**
     * Does one operation and commits it with its rows, or does nothing at all.
     *
     * @return list<array{type: string, file_id: string, from: string, to: string}> what it wrote
     */
    public function apply(string $operation, string $path, ?string $to, bool $fails = false): array
    {
        $this->changes = [];
        $this->db->beginTransaction();
        try {
            match ($operation) {
                'create' => $this->create($path, false),
                'create-folder' => $this->create($path, true),
                'modify' => $this->modify($path),
                'rename' => $this->rename($path, (string) $to),
                'delete' => $this->delete($path),
            };
            if ($fails) {
                throw new RuntimeException('asked to fail before the commit');
            }
            $this->db->commit();
        } catch (Throwable $failure) {
            if ($this->db->inTransaction()) {
                $this->db->rollBack();
            }
            throw $failure;
        }
        return $this->changes;
    }

    private function create(string $path, bool $isFolder): void
    {
        $id = bin2hex(random_bytes(16));
        $this->run(
            'INSERT INTO files (id, owner_id, path, is_folder, version) VALUES (?, ?, ?, ?, 1)',
            [$id, $this->userId, $path, (int) $isFolder],
        );
        $this->record('create', ['id' => $id, 'path' => $path, 'is_folder' => $isFolder]);
    }

    private function modify(string $path): void
    {
        $this->record('modify', $this->take($path) ?? throw new RuntimeException('no such file'));
    }

    private function rename(string $path, string $to): void
    {
        if (str_starts_with("{$to}/", "{$path}/") || str_starts_with("{$path}/", "{$to}/")) {
            throw new RuntimeException("can't move {$path} to {$to}: one holds the other");
        }
        $entry = $this->take($path) ?? throw new RuntimeException('no such file');
        if (($replaced = $this->take($to)) !== null) {
            $this->remove($replaced);
        }
        foreach ([$entry, ...$this->below($path)] as $moved) {
            $target = $to . substr($moved['path'], strlen($path));
            $this->run('UPDATE files SET path = ? WHERE id = ?', [$target, $moved['id']]);
        }
        $this->record('rename', $entry, $to);
    }

    private function delete(string $path): void
    {
        $this->remove($this->take($path) ?? throw new RuntimeException('no such file'));
    }

    /** @param array{id: string, path: string, is_folder: bool} $entry */
    private function remove(array $entry): void
    {
        foreach ([$entry, ...$this->below($entry['path'])] as $gone) {
            $this->run('DELETE FROM files WHERE id = ?', [$gone['id']]);
        }
        $this->record('delete', $entry);
    }

    /** @param array{id: string, path: string, is_folder: bool} $entry */
    private function record(string $type, array $entry, ?string $to = null): void
    {
        FileEvents::record(
            $this->db,
            userId: $this->userId,
            type: $type,
            fileId: $entry['id'],
            path: $entry['path'],
            to: $to,
            isFolder: $entry['is_folder'],
            clientId: $this->clientId,
            actorId: $this->actorId,
            key: $this->nextKey(),
            meta: ['by' => 'examples/php'],
        );
        $this->changes[] = [
            'type' => $type, 'file_id' => $entry['id'], 'from' => $entry['path'], 'to' => $to ?? '',
        ];
    }

    /** A key names one row, not one request: what replaces another entry writes two rows. */
    private function nextKey(): ?string
    {
        return $this->key === null ? null : $this->key . '-' . ++$this->keys;
    }

    /**
     * One entry, locked until the transaction ends, or null.
     *
     * The UPDATE comes first: whoever else changes this file waits here, so the order of the rows
     * in the outbox is the order of the changes.
     *
     * @return array{id: string, path: string, is_folder: bool}|null
     */
    private function take(string $path): ?array
    {
        $this->run(
            'UPDATE files SET version = version + 1 WHERE owner_id = ? AND path = ?',
            [$this->userId, $path],
        );
        return $this->select('path = ?', $path)[0] ?? null;
    }

    /**
     * Everything inside a folder. LIKE uses the index; whether it knows upper and lower case apart
     * depends on the engine, so each answer is looked at once more.
     *
     * @return list<array{id: string, path: string, is_folder: bool}>
     */
    private function below(string $path): array
    {
        $prefix = $path . '/';
        $pattern = str_replace(['!', '%', '_'], ['!!', '!%', '!_'], $prefix) . '%';
        $found = $this->select("path LIKE ? ESCAPE '!'", $pattern);
        return array_values(
            array_filter($found, fn (array $entry) => str_starts_with($entry['path'], $prefix)),
        );
    }

    /** @return list<array{id: string, path: string, is_folder: bool}> */
    private function select(string $condition, string $value): array
    {
        $rows = $this->run(
            "SELECT id, path, is_folder FROM files WHERE owner_id = ? AND {$condition}",
            [$this->userId, $value],
        );
        return array_map(
            fn (array $row) => [
                'id' => $row['id'], 'path' => $row['path'], 'is_folder' => (bool) $row['is_folder'],
            ],
            $rows->fetchAll(PDO::FETCH_ASSOC),
        );
    }

    /** @param list<string|int> $values */
    private function run(string $sql, array $values): PDOStatement
    {
        $statement = $this->db->prepare($sql);
        $statement->execute($values);
        return $statement;
    }
}
