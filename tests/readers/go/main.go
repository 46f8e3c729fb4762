// Command reader reads the stream at its first argument with tmaxmax/go-sse and prints each frame
// as a line of JSON. It comes back by itself, with Last-Event-ID; the token is in READER_TOKEN.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/tmaxmax/go-sse"
)

type frame struct {
	Event string `json:"event"`
	ID    string `json:"id"`
	Data  string `json:"data"`
}

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Args[1], http.NoBody)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("READER_TOKEN"))

	client := sse.Client{
		Backoff: sse.Backoff{InitialInterval: 200 * time.Millisecond, MaxInterval: time.Second},
		OnRetry: func(err error, wait time.Duration) { log.Printf("%v; back in %v", err, wait) },
	}
	connection := client.NewConnection(request)
	output := json.NewEncoder(os.Stdout)
	connection.SubscribeToAll(func(event sse.Event) {
		if err := output.Encode(frame{event.Type, event.LastEventID, event.Data}); err != nil {
			log.Fatal(err)
		}
	})
	// It returns only when it gives up for good.
	log.Fatal(connection.Connect())
}
