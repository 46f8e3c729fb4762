package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"example.org/files/fileevents"
)

// files is a tiny file app: one user's tree in the table `files` (examples/sql/files-*.sql).
type files struct {
	db       *sql.DB
	outbox   fileevents.Outbox
	userID   string
	clientID string
	actorID  string
	key      string
	keys     int
}

type entry struct {
	id       string
	path     string
	isFolder bool
}

var (
	errMissing = errors.New("no such file")
	errAsked   = errors.New("asked to fail before the commit")
)

// operation is one operation of the app in its transaction, and the changes it wrote.
type operation struct {
	*files
	ctx     context.Context
	tx      *sql.Tx
	changes []fileevents.Change
}

// apply does one operation and commits it with its rows, or does nothing at all.
func (f *files) apply(ctx context.Context, order order) ([]fileevents.Change, error) {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() // after a commit it does nothing
	o := &operation{files: f, ctx: ctx, tx: tx}
	if err := o.run(order); err != nil {
		return nil, err
	}
	if order.fails {
		return nil, errAsked
	}
	return o.changes, tx.Commit()
}

func (o *operation) run(order order) error {
	switch order.verb {
	case "create":
		return o.create(order.path, false)
	case "create-folder":
		return o.create(order.path, true)
	case "modify":
		return o.modify(order.path)
	case "rename":
		return o.rename(order.path, order.to)
	default:
		return o.delete(order.path)
	}
}

func (o *operation) create(path string, isFolder bool) error {
	random := make([]byte, 16)
	rand.Read(random) // never fails
	made := entry{hex.EncodeToString(random), path, isFolder}
	_, err := o.exec("INSERT INTO files (id, owner_id, path, is_folder, version) VALUES (?, ?, ?, ?, 1)",
		made.id, o.userID, path, number(isFolder))
	if err != nil {
		return err
	}
	return o.record(fileevents.Create, made, "")
}

func (o *operation) modify(path string) error {
	found, err := o.take(path)
	if err != nil {
		return err
	}
	return o.record(fileevents.Modify, found, "")
}

func (o *operation) rename(path, to string) error {
	if strings.HasPrefix(to+"/", path+"/") || strings.HasPrefix(path+"/", to+"/") {
		return fmt.Errorf("can't move %s to %s: one holds the other", path, to)
	}
	moved, err := o.take(path)
	if err != nil {
		return err
	}
	replaced, err := o.take(to)
	if err == nil {
		err = o.remove(replaced)
	}
	if err != nil && !errors.Is(err, errMissing) {
		return err
	}
	inside, err := o.below(path)
	if err != nil {
		return err
	}
	for _, one := range append(inside, moved) {
		target := to + strings.TrimPrefix(one.path, path)
		if _, err := o.exec("UPDATE files SET path = ? WHERE id = ?", target, one.id); err != nil {
			return err
		}
	}
	return o.record(fileevents.Rename, moved, to)
}

func (o *operation) delete(path string) error {
	found, err := o.take(path)
	if err != nil {
		return err
	}
	return o.remove(found)
}

func (o *operation) remove(gone entry) error {
	inside, err := o.below(gone.path)
	if err != nil {
		return err
	}
	for _, one := range append(inside, gone) {
		if _, err := o.exec("DELETE FROM files WHERE id = ?", one.id); err != nil {
			return err
		}
	}
	return o.record(fileevents.Delete, gone, "")
}

func (o *operation) record(kind string, of entry, to string) error {
	change := fileevents.Change{
		UserID:   o.userID,
		Type:     kind,
		FileID:   of.id,
		Path:     of.path,
		To:       to,
		IsFolder: of.isFolder,
		ClientID: o.clientID,
		ActorID:  o.actorID,
		Key:      o.nextKey(),
		Meta:     map[string]string{"by": "examples/go"},
	}
	if err := o.outbox.Record(o.ctx, o.tx, change); err != nil {
		return err
	}
	o.changes = append(o.changes, change)
	return nil
}

// nextKey: a key names one row, not one request: what replaces another entry writes two rows.
func (f *files) nextKey() string {
	if f.key == "" {
		return ""
	}
	f.keys++
	return f.key + "-" + strconv.Itoa(f.keys)
}

// take gives one entry, locked until the transaction ends.
//
// The UPDATE comes first: whoever else changes this file waits here, so the order of the rows in
// the outbox is the order of the changes.
func (o *operation) take(path string) (entry, error) {
	locked, err := o.exec("UPDATE files SET version = version + 1 WHERE owner_id = ? AND path = ?",
		o.userID, path)
	if err != nil {
		return entry{}, err
	}
	if rows, err := locked.RowsAffected(); err != nil {
		return entry{}, err
	} else if rows == 0 {
		return entry{}, errMissing
	}
	found, err := o.query("path = ?", path)
	if err != nil {
		return entry{}, err
	}
	return found[0], nil
}

var likeEscapes = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")

// below gives everything inside a folder. LIKE uses the index; whether it knows upper and lower
// case apart depends on the engine, so each answer is looked at once more.
func (o *operation) below(path string) ([]entry, error) {
	prefix := path + "/"
	found, err := o.query("path LIKE ? ESCAPE '!'", likeEscapes.Replace(prefix)+"%")
	var inside []entry
	for _, one := range found {
		if strings.HasPrefix(one.path, prefix) {
			inside = append(inside, one)
		}
	}
	return inside, err
}

func (o *operation) query(condition, value string) ([]entry, error) {
	text := "SELECT id, path, is_folder FROM files WHERE owner_id = ? AND " + condition
	rows, err := o.tx.QueryContext(o.ctx, o.words(text), o.userID, value)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []entry
	for rows.Next() {
		var one entry
		var isFolder int
		if err := rows.Scan(&one.id, &one.path, &isFolder); err != nil {
			return nil, err
		}
		one.isFolder = isFolder != 0
		found = append(found, one)
	}
	return found, rows.Err()
}

func (o *operation) exec(text string, values ...any) (sql.Result, error) {
	return o.tx.ExecContext(o.ctx, o.words(text), values...)
}

// words numbers the placeholders for PostgreSQL.
func (f *files) words(text string) string {
	if f.outbox != fileevents.PostgreSQL {
		return text
	}
	parts := strings.Split(text, "?")
	numbered := parts[0]
	for i, part := range parts[1:] {
		numbered += "$" + strconv.Itoa(i+1) + part
	}
	return numbered
}

func number(flag bool) int {
	if flag {
		return 1
	}
	return 0
}
