-- Both engines, and those that speak PostgreSQL's protocol: no types but TEXT, BIGINT and BOOLEAN. Times are
-- microseconds since 1970, 0 is never.

-- +goose Up
CREATE TABLE accounts (
    name     TEXT    NOT NULL PRIMARY KEY,
    kind     TEXT    NOT NULL CHECK (kind IN ('user', 'robot')),
    password TEXT    NOT NULL,
    disabled BOOLEAN NOT NULL,
    created  BIGINT  NOT NULL,
    changed  BIGINT  NOT NULL
);

CREATE TABLE account_groups (
    name    TEXT   NOT NULL PRIMARY KEY,
    created BIGINT NOT NULL
);

CREATE TABLE memberships (
    group_name TEXT NOT NULL REFERENCES account_groups (name) ON DELETE CASCADE,
    account    TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    PRIMARY KEY (group_name, account)
);

CREATE INDEX memberships_of_account ON memberships (account);

CREATE TABLE access_tokens (
    id        TEXT   NOT NULL PRIMARY KEY,
    hash      TEXT   NOT NULL UNIQUE,
    owner     TEXT   NOT NULL,
    backend   TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    shown     TEXT   NOT NULL,
    scopes    TEXT   NOT NULL,
    networks  TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    last_used BIGINT NOT NULL,
    last_from TEXT   NOT NULL,
    UNIQUE (backend, owner, name)
);

CREATE TABLE refresh_tokens (
    id        TEXT   NOT NULL PRIMARY KEY,
    hash      TEXT   NOT NULL UNIQUE,
    owner     TEXT   NOT NULL,
    backend   TEXT   NOT NULL,
    mark      TEXT   NOT NULL,
    service   TEXT   NOT NULL,
    client    TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    last_used BIGINT NOT NULL
);

CREATE INDEX refresh_tokens_of_owner ON refresh_tokens (backend, owner);
