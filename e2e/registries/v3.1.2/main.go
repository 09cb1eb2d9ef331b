// Registry is a small but real Distribution registry of one version, and the
// token access controller of that version on its own:
//
//	registry serve config.yml     serves like the stock binary
//	registry verify options.json  answers for JSON lines on stdin whether a token covers an access
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"syscall"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("registry: ")
	if len(os.Args) != 3 {
		log.Fatal("usage: registry serve config.yml | registry verify options.json")
	}
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(os.Args[2])
	case "verify":
		err = verify(os.Args[2], os.Stdin, os.Stdout)
	default:
		err = errors.New("unknown command " + os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	config, err := configuration.Parse(f)
	if err != nil {
		return err
	}
	f.Close()

	listener, err := net.Listen("tcp", config.HTTP.Addr)
	if err != nil {
		return err
	}
	app := handlers.NewApp(context.Background(), config)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" { // as the stock binary: it lives, whatever else; probes ask for it
			return
		}
		app.ServeHTTP(w, r)
	})}

	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	go func() {
		<-stop.Done()
		server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type question struct {
	Token  string `json:"token"`
	Access []struct {
		Type   string `json:"type"`
		Name   string `json:"name"`
		Action string `json:"action"`
	} `json:"access"`
}

type answer struct {
	OK        bool   `json:"ok"`
	Subject   string `json:"subject"`
	Error     string `json:"error"`
	Challenge string `json:"challenge"` // WWW-Authenticate, when the refusal is one
}

func verify(path string, in io.Reader, out io.Writer) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var options map[string]any
	if err := json.Unmarshal(data, &options); err != nil {
		return err
	}
	controller, err := auth.GetAccessController("token", options)
	if err != nil {
		return err
	}

	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var q question
		if err := decoder.Decode(&q); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := encoder.Encode(check(controller, q)); err != nil {
			return err
		}
	}
}

func check(controller auth.AccessController, q question) answer {
	request := httptest.NewRequest("GET", "http://localhost/v2/", nil)
	if q.Token != "" {
		request.Header.Set("Authorization", "Bearer "+q.Token)
	}
	var access []auth.Access
	for _, a := range q.Access {
		access = append(access, auth.Access{Resource: auth.Resource{Type: a.Type, Name: a.Name}, Action: a.Action})
	}

	grant, err := controller.Authorized(request, access...)
	if err != nil {
		refusal := answer{Error: err.Error()}
		var challenge auth.Challenge
		if errors.As(err, &challenge) {
			recorder := httptest.NewRecorder()
			challenge.SetHeaders(request, recorder)
			refusal.Challenge = recorder.Header().Get("WWW-Authenticate")
		}
		return refusal
	}
	return answer{OK: true, Subject: grant.User.Name}
}
