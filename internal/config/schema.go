package config

import _ "embed"

// Schema is the JSON schema of authserver.yaml, for editors. It is made of this package's types, what Load says of values
// that are out of bounds, and docs/configuration.md: go test ./internal/config -run Schema -update
//
//go:embed schema.json
var Schema []byte
