// Command oci-schema holds documents against the JSON schemas of the OCI image specification. Each argument is
// `media-type=file`; the first document that does not pass ends it with status 1 and the reason.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/image-spec/schema"
)

func main() {
	for _, argument := range os.Args[1:] {
		mediaType, file, _ := strings.Cut(argument, "=")
		if err := validate(schema.Validator(mediaType), file); err != nil {
			fmt.Fprintf(os.Stderr, "%s is no %s: %v\n", file, mediaType, err)
			os.Exit(1)
		}
	}
}

func validate(validator schema.Validator, file string) error {
	content, err := os.Open(file)
	if err != nil {
		return err
	}
	defer content.Close()
	return validator.Validate(content)
}
