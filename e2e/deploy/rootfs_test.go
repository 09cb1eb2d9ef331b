package deploy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"authserver/e2e/harness"
)

// files are what the operator's Secrets and ConfigMaps hold, by "Secret/NAME" and "ConfigMap/NAME".
type files map[string]map[string]string

// rootfs lays out what the container of authserver sees: a folder that has the files of its volumes where they are
// mounted, with the owner and the modes that a kubelet gives them.
func (o objects) rootfs(t testing.TB, given files) string {
	t.Helper()
	d, c := o.server(t)
	root := t.TempDir()
	mounted := map[string]string{}
	for _, m := range c.VolumeMounts {
		mounted[m.Name] = filepath.Join(root, m.MountPath)
	}
	// The image's own, which is read-only where no volume is mounted.
	if err := os.MkdirAll(filepath.Join(root, "var", "lib", "authserver"), 0o555); err != nil {
		t.Fatal(err)
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		dir := mounted[v.Name]
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		switch {
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					o.project(t, dir, "ConfigMap/"+s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, *v.Projected.DefaultMode, given)
				}
				if s.Secret != nil {
					o.project(t, dir, "Secret/"+s.Secret.Name, s.Secret.Items, s.Secret.Optional, *v.Projected.DefaultMode, given)
				}
			}
		case v.Secret != nil:
			o.project(t, dir, "Secret/"+v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, *v.Secret.DefaultMode, given)
		default: // of the pod's fsGroup
			if err := errors.Join(os.Chown(dir, user, user), os.Chmod(dir, 0o755)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// project writes the keys of a ConfigMap or Secret as files: root's, readable for the pod's fsGroup.
func (o objects) project(t testing.TB, dir, from string, items []corev1.KeyToPath, optional *bool, mode int32, given files) {
	t.Helper()
	data := given[from]
	if config, ok := o[from].(*corev1.ConfigMap); ok {
		data = config.Data
	}
	if data == nil && optional != nil && *optional {
		return
	}
	paths := map[string]string{}
	for key := range data {
		paths[key] = key
	}
	if len(items) > 0 {
		clear(paths)
		for _, item := range items {
			paths[item.Key] = item.Path
		}
	}
	if len(paths) == 0 {
		t.Fatalf("nothing is known of %s", from)
	}
	for key, path := range paths {
		content, ok := data[key]
		if !ok {
			t.Fatalf("%s has no %s", from, key)
		}
		file := filepath.Join(dir, path)
		write(t, file, []byte(content), 0o600)
		if err := os.Chown(file, 0, user); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, fs.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
}

// program puts the static program into a root file system, where the image has it.
func program(t testing.TB, root string) {
	t.Helper()
	target := filepath.Join(root, "authserver")
	source, err := filepath.EvalSymlinks(harness.Program(t, "authserver"))
	if err != nil {
		t.Fatal(err)
	}
	if os.Link(source, target) != nil { // another file system
		write(t, target, harness.ReadFile(t, source), 0o755)
	}
}

// inside is a process that sees nothing but root, as the image's user and without any capability.
func inside(root string) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user, Groups: []uint32{user}}}
}

// environment is what the manifest gives the container, with Secrets looked up.
func environment(t testing.TB, c corev1.Container, given files) []string {
	t.Helper()
	var environment []string
	for _, e := range c.Env {
		value := e.Value
		if e.ValueFrom != nil {
			ref := e.ValueFrom.SecretKeyRef
			var ok bool
			if value, ok = given["Secret/"+ref.Name][ref.Key]; !ok {
				t.Fatalf("Secret %s has no %s", ref.Name, ref.Key)
			}
		}
		environment = append(environment, e.Name+"="+value)
	}
	return environment
}

// flags are the container's arguments but its command: --config FILE.
func flags(t testing.TB, c corev1.Container) []string {
	t.Helper()
	if len(c.Args) == 0 || c.Args[0] != "serve" || len(c.Command) > 0 {
		t.Fatalf("the container runs %q %q", c.Command, c.Args)
	}
	return c.Args[1:]
}

// overrides turns name=value pairs into --set flags.
func overrides(pairs ...string) []string {
	var flags []string
	for _, pair := range pairs {
		flags = append(flags, "--set", pair)
	}
	return flags
}

// indented is text for a log.
func indented(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
