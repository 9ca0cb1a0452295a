// Package api holds the types and request builders of SaaSquatch's HTTP API, generated from
// ../openapi.yaml. The connector sends what they build through its account's transport; the generated
// Client, which knows no rate, no breaker and no single attempt, is not used.
package api

//go:generate go tool oapi-codegen -config oapi.yaml ../openapi.yaml
