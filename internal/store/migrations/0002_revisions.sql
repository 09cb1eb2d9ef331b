-- How often each part was changed: processes that remember what they read ask this, and nothing else, whether they may.
-- Signing keys, for processes that share them; content is encrypted.

-- +goose Up
CREATE TABLE revisions (
    part   TEXT   NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);

INSERT INTO revisions (part, number) VALUES ('accounts', 0);
INSERT INTO revisions (part, number) VALUES ('keys', 0);

CREATE TABLE signing_keys (
    name    TEXT   NOT NULL PRIMARY KEY,
    content TEXT   NOT NULL,
    changed BIGINT NOT NULL
);
