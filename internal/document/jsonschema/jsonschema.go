// Package jsonschema says as a JSON schema, for editors, what document.Decode takes. The schemas are committed, and
// tests hold them against the code: only tests use this.
package jsonschema

import (
	"bytes"
	"encoding/json"
	"reflect"

	"authserver/internal/document"
)

// Object is a schema, or a part of one.
type Object map[string]any

// Of is the schema of what a type is decoded from. note is called for every key, with its path as documentation writes it
// (services[].name), and may add to its schema.
func Of(t reflect.Type, path string, note func(path string, o Object)) Object {
	o := Object{}
	switch {
	case t == reflect.TypeFor[document.Duration]():
		o["type"], o["pattern"] = "string", `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	case t.Kind() == reflect.Pointer:
		return Of(t.Elem(), path, note)
	case t.Kind() == reflect.Struct:
		properties := Object{}
		for field := range t.Fields() {
			if name := field.Tag.Get("yaml"); name != "" && name != "-" {
				below := name
				if path != "" {
					below = path + "." + name
				}
				properties[name] = Of(field.Type, below, note)
			}
		}
		o["type"], o["properties"], o["additionalProperties"] = "object", properties, false
	case t.Kind() == reflect.Slice:
		o["type"], o["items"] = "array", Of(t.Elem(), path+"[]", note)
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Interface:
		o["type"] = "object"
	case t.Kind() == reflect.Map:
		o["type"], o["additionalProperties"] = "object", Of(t.Elem(), path+".*", note)
	case t.Kind() == reflect.Bool:
		o["type"] = "boolean"
	case t.Kind() == reflect.Int:
		o["type"] = "integer"
	case t.Kind() == reflect.String:
		o["type"] = "string"
	}
	note(path, o)
	return o
}

// Text is a whole schema as it is written into a file. Draft 7 is what editors know best.
func Text(title string, o Object) []byte {
	whole := Object{"$schema": "http://json-schema.org/draft-07/schema#", "title": title}
	for key, value := range o {
		whole[key] = value
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(whole); err != nil {
		panic(err) // a map of plain values
	}
	return text.Bytes()
}
