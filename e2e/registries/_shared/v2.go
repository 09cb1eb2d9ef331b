package main

import (
	"context"
	"io"
	"net/http"

	"github.com/docker/distribution/configuration"
	dcontext "github.com/docker/distribution/context"
	"github.com/docker/distribution/registry/auth"
	_ "github.com/docker/distribution/registry/auth/htpasswd"
	_ "github.com/docker/distribution/registry/auth/token"
	"github.com/docker/distribution/registry/handlers"
	_ "github.com/docker/distribution/registry/storage/driver/filesystem"
	_ "github.com/docker/distribution/registry/storage/driver/inmemory"
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
	ctx, err := controller.Authorized(dcontext.WithRequest(context.Background(), request), asked...)
	if err != nil {
		return "", err
	}
	subject, _ := ctx.Value(auth.UserNameKey).(string)
	return subject, nil
}
