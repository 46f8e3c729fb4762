// Command demo does operations of a tiny file app, each in one transaction with its rows.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"example.org/files/fileevents"
)

const usage = `go run ./cmd/demo [-client-id UUID] [-actor ID] [-key TEXT] ADDRESS USER OPERATION...

OPERATION is one of: create PATH, create-folder PATH, modify PATH, rename PATH TO, delete PATH.
'fail' before an operation makes it fail just before its commit.
ADDRESS is pgx's or go-sql-driver's: postgres://host:5432/database   tcp(host:3306)/database
The role and its password come from DB_USER and DB_PASSWORD.

Each committed change is printed as one line of JSON. Exit code 1: an operation was rolled back.
`

// order is one operation as asked for.
type order struct {
	verb  string
	path  string
	to    string
	fails bool
}

var errUsage = errors.New("unknown operation, or a path is missing")

func main() {
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	clientID := flag.String("client-id", "", "the X-Cr-Client-Id of the request")
	actorID := flag.String("actor", "", "who did it, when it was not the owner")
	key := flag.String("key", "", "the same text again when the same is written again")
	flag.Parse()
	if flag.NArg() < 2 {
		flag.Usage()
		os.Exit(2)
	}
	orders, err := parse(flag.Args()[2:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\n\n%s", err, usage)
		os.Exit(2)
	}
	db, outbox, err := connect(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	app := &files{db: db, outbox: outbox, userID: flag.Arg(1),
		clientID: *clientID, actorID: *actorID, key: *key}
	os.Exit(run(app, orders))
}

func parse(words []string) ([]order, error) {
	arity := map[string]int{"create": 1, "create-folder": 1, "modify": 1, "rename": 2, "delete": 1}
	var orders []order
	for len(words) > 0 {
		var next order
		if words[0] == "fail" {
			next.fails, words = true, words[1:]
		}
		if len(words) == 0 || arity[words[0]] == 0 || len(words) <= arity[words[0]] {
			return nil, errUsage
		}
		next.verb, next.path = words[0], words[1]
		if arity[next.verb] == 2 {
			next.to = words[2]
		}
		words = words[1+arity[next.verb]:]
		orders = append(orders, next)
	}
	return orders, nil
}

func connect(address string) (*sql.DB, fileevents.Outbox, error) {
	if strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://") {
		config, err := pgx.ParseConfig(address)
		if err != nil {
			return nil, "", err
		}
		config.User = given("DB_USER", config.User)
		config.Password = given("DB_PASSWORD", config.Password)
		return stdlib.OpenDB(*config), fileevents.PostgreSQL, nil
	}
	config, err := mysql.ParseDSN(address)
	if err != nil {
		return nil, "", err
	}
	config.User = given("DB_USER", config.User)
	config.Passwd = given("DB_PASSWORD", config.Passwd)
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, "", err
	}
	return sql.OpenDB(connector), fileevents.MySQL, nil
}

func given(variable, otherwise string) string {
	if value := os.Getenv(variable); value != "" {
		return value
	}
	return otherwise
}

func run(app *files, orders []order) int {
	code := 0
	for _, order := range orders {
		changes, err := app.apply(context.Background(), order)
		if err != nil {
			fmt.Fprintf(os.Stderr, "rolled back: %s %s: %v\n", order.verb, order.path, err)
			code = 1
			continue
		}
		for _, change := range changes {
			show(change)
		}
	}
	return code
}

func show(change fileevents.Change) {
	line, err := json.Marshal(struct {
		Type   string `json:"type"`
		FileID string `json:"file_id"`
		From   string `json:"from"`
		To     string `json:"to"`
	}{change.Type, change.FileID, change.Path, change.To})
	if err != nil {
		panic(err) // four strings are always JSON
	}
	fmt.Println(string(line))
}
