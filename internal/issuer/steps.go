package issuer

import (
	"context"
	"time"

	"authserver/internal/audit"
	"authserver/internal/scope"
	"authserver/internal/tracing"
	"authserver/internal/users"
)

// The steps of a request, as those see them who trace it. Names of users and of repositories are not told: the record has them.

// authenticate tells who asks, or returns users.ErrRefused, ErrThrottled or ErrUnavailable.
func (i *Issuer) authenticate(ctx context.Context, r Request, service string, now time.Time) (users.Principal, error) {
	ctx, span := tracing.Start(ctx, "authenticate")
	defer span.End()
	who, err := i.principal(ctx, r, service, now)
	if span != nil {
		answer := "known"
		if err != nil {
			answer = outcomeOf(err)
		}
		span.Set("authserver.answer", answer)
		span.Set("authserver.backend", who.Backend)
		if answer == audit.Unavailable {
			span.Fail("it cannot be said who asks")
		}
	}
	return who, err
}

// decide asks the policy and, for what it grants, the reviewer. Whatever they answer, nobody gets what they did not ask for.
func (i *Issuer) decide(ctx context.Context, r Request, who users.Principal, service string, now time.Time) (scope.Set, []scope.Verdict, error) {
	ctx, span := tracing.Start(ctx, "decide")
	defer span.End()
	granted, verdicts, err := i.verdict(ctx, r, who, service, now)
	if err != nil {
		span.Fail("it cannot be said what is granted")
	}
	return granted, verdicts, err
}

// sign makes the token.
func (i *Issuer) sign(ctx context.Context, s Service, key *Key, subject string, granted scope.Set, now time.Time) (token, jti string, err error) {
	_, span := tracing.Start(ctx, "sign")
	defer span.End()
	span.Set("authserver.algorithm", key.Algorithm)
	token, jti, err = mint(s, key, subject, granted, now, i.random)
	if err != nil {
		span.Fail("the token cannot be made")
	}
	return token, jti, err
}

// record writes the event down.
func (i *Issuer) record(ctx context.Context, event audit.Event) error {
	_, span := tracing.Start(ctx, "record")
	defer span.End()
	err := i.audit.Record(event)
	if err != nil {
		span.Fail("the record cannot be written")
	}
	return err
}
