// Registry is a small but real Distribution registry of one version, and the
// token access controller of that version on its own:
//
//	registry serve config.yml     serves like the stock binary
//	registry verify options.json  answers for JSON lines on stdin whether a token covers an access
//
// This file is the same for all versions. What the versions call differently is in v2.go and v3.go.
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
	defer f.Close()
	app, address, err := newApp(f)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
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
	controller, err := newController("token", options)
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

func check(controller accessController, q question) answer {
	request := httptest.NewRequest("GET", "http://localhost/v2/", nil)
	if q.Token != "" {
		request.Header.Set("Authorization", "Bearer "+q.Token)
	}
	var asked []access
	for _, a := range q.Access {
		asked = append(asked, access{Resource: resource{Type: a.Type, Name: a.Name}, Action: a.Action})
	}
	subject, err := authorized(controller, request, asked)
	if err != nil {
		return answer{Error: err.Error(), Challenge: challenge(err, request)}
	}
	return answer{OK: true, Subject: subject}
}

// challenge is what a refusal has for WWW-Authenticate.
func challenge(refusal error, request *http.Request) string {
	recorder := httptest.NewRecorder()
	var old interface{ SetHeaders(http.ResponseWriter) } // 2.5
	var since interface {
		SetHeaders(*http.Request, http.ResponseWriter)
	}
	switch {
	case errors.As(refusal, &since):
		since.SetHeaders(request, recorder)
	case errors.As(refusal, &old):
		old.SetHeaders(recorder)
	}
	return recorder.Header().Get("WWW-Authenticate")
}
