// Command echo answers every HTTP request with one JSON line that says where it runs. The tests of the cluster fixture
// use it as the smallest pod that proves scheduling, networking and the architecture of an image.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sort"
	"syscall"
	"time"
)

// answer is the body of every response.
type answer struct {
	Architecture string   `json:"architecture"`
	Hostname     string   `json:"hostname"`
	Path         string   `json:"path"`
	Processors   []string `json:"processors"`
	Environment  []string `json:"environment"`
}

func main() {
	listen := flag.String("listen", ":8080", "address to listen on")
	flag.Parse()
	hostname, _ := os.Hostname()
	environment := os.Environ()
	sort.Strings(environment)
	processors := []string{}
	entries, _ := os.ReadDir("/sys/devices/system/cpu")
	for _, entry := range entries {
		processors = append(processors, entry.Name())
	}
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: 5 * time.Second}
	server.Handler = http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		writer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(writer).Encode(answer{
			Architecture: runtime.GOARCH, Hostname: hostname, Path: request.URL.Path,
			Processors: processors, Environment: environment,
		})
	})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-stop; os.Exit(0) }()
	log.Fatal(server.ListenAndServe())
}
