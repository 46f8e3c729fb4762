<?php

/**
 * Reads batches from standard input, a JSON array of changes a line, and appends each by HTTP.
 *
 *     APPEND_TOKEN=… php append.php https://files.example/api/v4/file/events < batches
 *
 * Prints for each batch what was accepted and in how many tries.
 */

declare(strict_types=1);

require __DIR__ . '/AppendEvents.php';

[, $url] = $argv + [null, null];
$token = getenv('APPEND_TOKEN');
if ($url === null || $token === false) {
    fwrite(STDERR, "usage: APPEND_TOKEN=... php append.php URL < batches\n");
    exit(2);
}
$events = new AppendEvents($url, $token);
while (($line = fgets(STDIN)) !== false) {
    $before = $events->tries;
    $accepted = $events->append(json_decode($line, true, 64, JSON_THROW_ON_ERROR));
    echo json_encode($accepted + ['tries' => $events->tries - $before]), "\n";
}
