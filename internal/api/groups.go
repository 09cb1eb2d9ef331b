package api

import (
	"context"
	"errors"
	"net/http"

	"authserver/internal/users"
)

type group struct {
	Name string `json:"name"`
}

type member struct {
	Account string `json:"account"`
}

// OfGroup is a request about a group.
type OfGroup struct {
	Group string `path:"group" maxLength:"255"`
}

type pageOfGroup struct {
	OfGroup
	Page
}

type membership struct {
	OfGroup
	Account string `path:"account" maxLength:"255"`
}

func (a *API) groupOperations() {
	const resource = "groups/{group}"
	register(a, operation{id: "list-groups", method: http.MethodGet, path: "/groups", summary: "Groups of the database, by name", resource: "groups", action: "read"},
		func(ctx context.Context, in *Page) (*list[group], error) {
			names, err := a.Store.GroupsAfter(ctx, in.After, in.Limit+1)
			return paged(*in, names, itself, func(name string) group { return group{name} }), err
		})
	register(a, operation{id: "make-group", method: http.MethodPut, path: "/groups/{group}", summary: "Make a group, if it is not there", resource: resource, action: "write", status: http.StatusNoContent},
		func(ctx context.Context, in *OfGroup) (*done, error) {
			if _, err := users.ParseAccountName(in.Group); err != nil {
				return nil, problem(http.StatusUnprocessableEntity, err.Error())
			}
			switch err := a.Store.AddGroup(ctx, in.Group, a.Now()); {
			case errors.Is(err, users.ErrConflict):
				return nil, nil
			case err != nil:
				return nil, err
			}
			return nil, a.changed(ctx, caller(ctx), "make-group", "groups/"+in.Group)
		})
	register(a, operation{id: "remove-group", method: http.MethodDelete, path: "/groups/{group}", summary: "Remove a group", resource: resource, action: "write", status: http.StatusNoContent},
		func(ctx context.Context, in *OfGroup) (*done, error) {
			if err := a.Store.RemoveGroup(ctx, in.Group); err != nil {
				return nil, err
			}
			return nil, a.changed(ctx, caller(ctx), "remove-group", "groups/"+in.Group)
		})
	register(a, operation{id: "list-members", method: http.MethodGet, path: "/groups/{group}/members", summary: "Who is in a group", resource: resource, action: "read"},
		func(ctx context.Context, in *pageOfGroup) (*list[member], error) {
			names, err := a.Store.MembersAfter(ctx, in.Group, in.After, in.Limit+1)
			return paged(in.Page, names, itself, func(name string) member { return member{name} }), err
		})
	register(a, operation{id: "add-member", method: http.MethodPut, path: "/groups/{group}/members/{account}", summary: "Put an account into a group", resource: resource, action: "write", status: http.StatusNoContent},
		func(ctx context.Context, in *membership) (*done, error) {
			if err := a.Store.AddMember(ctx, in.Group, in.Account); err != nil {
				return nil, err
			}
			return nil, a.changed(ctx, caller(ctx), "add-member", "groups/"+in.Group+"/"+in.Account)
		})
	register(a, operation{id: "remove-member", method: http.MethodDelete, path: "/groups/{group}/members/{account}", summary: "Take an account out of a group", resource: resource, action: "write", status: http.StatusNoContent},
		func(ctx context.Context, in *membership) (*done, error) {
			if err := a.Store.RemoveMember(ctx, in.Group, in.Account); err != nil {
				return nil, err
			}
			return nil, a.changed(ctx, caller(ctx), "remove-member", "groups/"+in.Group+"/"+in.Account)
		})
}
