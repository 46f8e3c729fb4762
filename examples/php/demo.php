<?php

declare(strict_types=1);

require __DIR__ . '/Files.php';

const USAGE = <<<'TEXT'
    php demo.php [--client-id UUID] [--actor ID] [--key TEXT] DSN USER OPERATION...

    OPERATION is one of: create PATH, create-folder PATH, modify PATH, rename PATH TO, delete PATH.
    'fail' before an operation makes it fail just before its commit.
    DSN is PDO's: pgsql:host=…;dbname=…   mysql:host=…;dbname=…;charset=utf8mb4   sqlite:FILE
    The role and its password come from DB_USER and DB_PASSWORD.

    Each committed change is printed as one line of JSON. Exit code 1: an operation was rolled back.

    TEXT;

const OPTIONS = ['--client-id', '--actor', '--key'];
const OPERATIONS = ['create' => 1, 'create-folder' => 1, 'modify' => 1, 'rename' => 2, 'delete' => 1];

function connect(string $dsn): PDO
{
    $user = getenv('DB_USER');
    $password = getenv('DB_PASSWORD');
    $options = [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION,
        PDO::ATTR_EMULATE_PREPARES => false,
    ];
    $db = new PDO($dsn, $user === false ? null : $user, $password === false ? null : $password, $options);
    if ($db->getAttribute(PDO::ATTR_DRIVER_NAME) === 'sqlite') {
        $db->exec('PRAGMA busy_timeout = 5000');
    }
    return $db;
}

/** @param list<string> $words */
function run(Files $files, array $words): bool
{
    $done = true;
    while ($words !== []) {
        $fails = $words[0] === 'fail' && array_shift($words) !== null;
        $operation = array_shift($words) ?? '';
        $arity = OPERATIONS[$operation] ?? throw new InvalidArgumentException(USAGE);
        $paths = array_splice($words, 0, $arity);
        if (count($paths) < $arity) {
            throw new InvalidArgumentException(USAGE);
        }
        try {
            foreach ($files->apply($operation, $paths[0], $paths[1] ?? null, $fails) as $change) {
                echo json_encode($change, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES), "\n";
            }
        } catch (RuntimeException $failure) {
            fwrite(STDERR, "rolled back: {$operation} {$paths[0]}: {$failure->getMessage()}\n");
            $done = false;
        }
    }
    return $done;
}

$words = array_slice($argv, 1);
$given = [];
while ($words !== [] && in_array($words[0], OPTIONS, true)) {
    $given[array_shift($words)] = array_shift($words);
}
if (count($words) < 2) {
    fwrite(STDERR, USAGE);
    exit(2);
}
[$dsn, $user] = array_splice($words, 0, 2);
try {
    $files = new Files(
        connect($dsn),
        $user,
        clientId: $given['--client-id'] ?? null,
        actorId: $given['--actor'] ?? null,
        key: $given['--key'] ?? null,
    );
    exit(run($files, $words) ? 0 : 1);
} catch (InvalidArgumentException | PDOException $failure) {
    fwrite(STDERR, rtrim($failure->getMessage()) . "\n");
    exit(2);
}
