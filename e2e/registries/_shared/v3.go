package main

import (
	"context"
	"io"
	"net/http"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

type (
	accessController = auth.AccessController
	access           = auth.Access
	resource         = auth.Resource
)

var newController = auth.GetAccessController

// newApp is the registry that a configuration describes, and where it listens.
func newApp(configYAML io.Reader) (http.Handler, string, error) {
	config, err := configuration.Parse(configYAML)
	if err != nil {
		return nil, "", err
	}
	return handlers.NewApp(context.Background(), config), config.HTTP.Addr, nil
}

// authorized asks an access controller, and returns the subject of the token.
func authorized(controller auth.AccessController, request *http.Request, asked []auth.Access) (string, error) {
	grant, err := controller.Authorized(request, asked...)
	if err != nil {
		return "", err
	}
	return grant.User.Name, nil
}
