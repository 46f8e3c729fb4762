package fileevents_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"

	"example.org/files/fileevents"
)

var errFaster = errors.New("somebody else was faster")

// move is what docs/how-to/write-events-from-go.md shows.
func move(ctx context.Context, db *sql.DB, request *http.Request, ownerID, id, from, to string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing

	result, err := tx.ExecContext(ctx,
		"UPDATE files SET path = $1 WHERE id = $2 AND path = $3", to, id, from)
	if err != nil {
		return err
	}
	if rows, err := result.RowsAffected(); err != nil || rows != 1 {
		return errors.Join(errFaster, err) // no event
	}
	err = fileevents.PostgreSQL.Record(ctx, tx, fileevents.Change{
		UserID:   ownerID,
		Type:     fileevents.Rename,
		FileID:   id,
		Path:     from,
		To:       to,
		ClientID: request.Header.Get("X-Cr-Client-Id"),
	})
	if err != nil {
		return err
	}
	return tx.Commit()
}

var _ = move
