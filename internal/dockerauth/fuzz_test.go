package dockerauth

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever stands in a configuration, what is made of it can be read.
func FuzzConvert(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), false)
	}
	f.Add("acl:\n- match: {account: '/^(.+)@(.+)$/', name: '${account:1}-${labels:a}/[^\\x]?*', labels: {a: '/b|${account}/', '${b}': c}, service: '*', ip: '::1'}\n  actions: [pull, '*']\n  comment: \"\\u2028#\\n\"\n", true)
	f.Add("users: {a: {password: '$2y$05$WuwBasGDAgr.QCbGIjKJaep4dhxeai9gNZdmBnQXqpKly57oNutya', labels: {l: [a, \"b\\nc\", '\"', '\\']}}}\nacl: [{match: {name: \"/${labels:l}['\\\"]/\"}, actions: [pull]}]", false)
	f.Fuzz(func(t *testing.T, text string, safe bool) {
		o := options()
		o.Safe = safe
		_, err := Convert("config.yml", []byte(text), o)
		if err != nil && strings.Contains(err.Error(), "a fault of the import") {
			t.Errorf("%v", err)
		}
	})
}
