// Package fileevents writes rows into file_event_outbox: one for each change of a file.
//
// It needs nothing but database/sql. Copy it into your code, or import it.
package fileevents

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
)

// The four types of change.
const (
	Create = "create"
	Modify = "modify"
	Rename = "rename"
	Delete = "delete"
)

// Change is one row. What is optional may be empty.
type Change struct {
	UserID   string // whose tree changed: the same text as the token's subject
	Type     string // Create, Modify, Rename or Delete
	FileID   string // the app's own stable id of the file or folder
	FS       string // optional; the file system of the URI, "my" unless said otherwise
	Path     string // decoded and absolute, "/docs/plan.md"; of a rename: the old path
	To       string // the new path; of a rename only
	IsFolder bool
	ClientID string // optional; the X-Cr-Client-Id header of the request, as it came
	ActorID  string // optional; who did it, when it was not the owner of the file
	Key      string // optional; the same text again when the same change is written again
	Meta     any    // optional; what an auditor may want to know, as JSON
}

// Outbox is the statement in the words of one database.
type Outbox string

const columns = "INSERT INTO file_event_outbox (user_id, type, file_id, fs, from_path, to_path," +
	" is_folder, client_id, actor_id, event_key, meta) VALUES "

// PostgreSQL is for pgx and lib/pq; MySQL is for MariaDB and MySQL.
const (
	PostgreSQL Outbox = columns + "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
	MySQL      Outbox = columns + "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

// Record writes the row. tx is the transaction that changes the file; call it after your own
// statements. When it fails, roll tx back.
func (outbox Outbox) Record(ctx context.Context, tx *sql.Tx, change Change) error {
	var meta sql.NullString
	if change.Meta != nil {
		text, err := json.Marshal(change.Meta)
		if err != nil {
			return fmt.Errorf("fileevents: meta: %w", err)
		}
		meta = sql.NullString{String: string(text), Valid: true}
	}
	fs, isFolder := "my", 0
	if change.FS != "" {
		fs = change.FS
	}
	if change.IsFolder {
		isFolder = 1
	}
	_, err := tx.ExecContext(ctx, string(outbox),
		change.UserID, change.Type, change.FileID, fs, change.Path, optional(change.To),
		isFolder, optional(uuid(change.ClientID)), optional(change.ActorID), optional(change.Key),
		meta)
	if err != nil {
		return fmt.Errorf("fileevents: %s %s: %w", change.Type, change.Path, err)
	}
	return nil
}

func optional(text string) sql.NullString {
	return sql.NullString{String: text, Valid: text != ""}
}

var clutter = strings.NewReplacer("urn:uuid:", "", "{", "", "}", "", "-", "")

// uuid gives the usual form. The header is the client's word: what is no UUID counts as absent.
func uuid(text string) string {
	hex := clutter.Replace(strings.ToLower(strings.TrimSpace(text)))
	if len(hex) != 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:]
}
