// Command ociregistry serves a registry from memory: all of the OCI distribution specification 1.1, with its
// referrers API, chunks, mounts and deletion. It forgets everything when it ends.
package main

import (
	"crypto/subtle"
	"flag"
	"log"
	"net/http"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

var (
	address     = flag.String("address", "", "host:port to listen on")
	certificate = flag.String("certificate", "", "file of the TLS certificate; none: plain HTTP")
	key         = flag.String("key", "", "file of the certificate's key")
	user        = flag.String("user", "", "user name that every request must bring; none: everybody is let in")
	password    = flag.String("password", "", "and the password")
	keep        = flag.Bool("keep", false, "refuse every deletion with status 405")
	blobStore   = flag.String("blob-store", "", "host:port of a second server, to which downloads are redirected")
)

func main() {
	flag.Parse()
	registry := ociserver.New(ocimem.New(), nil)
	if *blobStore != "" {
		go serve(*blobStore, refusingCredentials(registry))
		registry = redirectingDownloads(registry)
	}
	serve(*address, admitting(registry))
}

func serve(address string, handler http.Handler) {
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	if *certificate != "" {
		log.Fatal(server.ListenAndServeTLS(*certificate, *key))
	}
	log.Fatal(server.ListenAndServe())
}

// redirectingDownloads sends whoever fetches a blob elsewhere, as registries before an object store do.
func redirectingDownloads(next http.Handler) http.Handler {
	scheme := "http://"
	if *certificate != "" {
		scheme = "https://"
	}
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/blobs/sha256:") {
			http.Redirect(answer, request, scheme+*blobStore+request.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		next.ServeHTTP(answer, request)
	})
}

// refusingCredentials answers as object stores do that are shown a signed address and credentials beside it.
func refusingCredentials(next http.Handler) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		if request.Header.Get("Authorization") != "" {
			http.Error(answer, "only one way to authenticate is allowed", http.StatusBadRequest)
			return
		}
		next.ServeHTTP(answer, request)
	})
}

func admitting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		if !admitted(request) {
			answer.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			http.Error(answer, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		if *keep && request.Method == http.MethodDelete {
			http.Error(answer, `{"errors":[{"code":"UNSUPPORTED"}]}`, http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(answer, request)
	})
}

func admitted(request *http.Request) bool {
	if *user == "" {
		return true
	}
	name, word, _ := request.BasicAuth()
	return subtle.ConstantTimeCompare([]byte(name+":"+word), []byte(*user+":"+*password)) == 1
}
