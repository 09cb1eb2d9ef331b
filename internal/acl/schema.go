package acl

import _ "embed"

// The JSON schemas of a policy file and of a file of policy tests, for editors. They are made of this package's types and of
// docs/policy.md: go test ./internal/acl -run Schema -update
var (
	//go:embed schema/policy.json
	PolicySchema []byte
	//go:embed schema/test.json
	TestSchema []byte
)
