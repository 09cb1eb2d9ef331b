package acl

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	_ "time/tzdata" // now.getHours("Europe/Berlin"), in an image that has no time zones of its own

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"authserver/internal/scope"
)

// Bounds of conditions: the text of one; its cost in CEL's units (about a string comparison each), which is estimated
// when it is loaded and enforced when it runs; and the cost of all that one request makes run, past which they fail. A
// client chooses how many resources and actions it asks for, and rules may be many.
const (
	maxConditionText = 4 << 10
	maxConditionCost = 500_000
	maxQuestionCost  = 1_000_000
	mostGroups       = 1000 // assumed for the estimate
)

// condition is a rule's `when`: a CEL expression that is true or false.
type condition struct {
	program cel.Program
	action  bool // it names action
	typ     bool // it names resource.type
	name    bool // it names resource.name
}

// environment declares what a condition can name.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(append([]cel.EnvOption{
		ext.Network(), ext.Strings(),
		cel.Variable("user.name", cel.StringType),
		cel.Variable("user.groups", cel.ListType(cel.StringType)),
		cel.Variable("user.kind", cel.StringType),
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("request.service", cel.StringType),
		cel.Variable("request.ip", ext.IPType),
		cel.Variable("resource.type", cel.StringType),
		cel.Variable("resource.name", cel.StringType),
		cel.Variable("action", cel.StringType),
		cel.Variable("now", cel.TimestampType),
		cel.ParserRecursionLimit(50), cel.ParserExpressionSizeLimit(maxConditionText),
	}, functions...)...)
})

// lineBreaks keeps a fault on its line.
var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ")

// newCondition compiles and type-checks an expression. Its error names line and column within the expression.
func newCondition(text string) (*condition, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	if len(text) > maxConditionText {
		return nil, fmt.Errorf("longer than %d bytes", maxConditionText)
	}
	tree, issues := env.Compile(text)
	if issues.Err() != nil {
		var faults []string
		for _, e := range issues.Errors() {
			faults = append(faults, fmt.Sprintf("line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1, e.Message))
		}
		return nil, errors.New(lineBreaks.Replace(strings.Join(faults, "; "))) // a message quotes the expression
	}
	if kind := tree.OutputType(); !kind.IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("line 1, column 1: is of type %s; a condition is true or false", kind)
	}
	prices, err := expressionsOf(tree.NativeRep())
	if err != nil {
		return nil, errors.New(lineBreaks.Replace(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	estimate, err := env.EstimateCost(tree, prices)
	if err != nil {
		return nil, err
	}
	if estimate.Max > maxConditionCost {
		return nil, fmt.Errorf("line 1, column 1: may cost up to %d, at most %d is allowed; look at less, or bound a loop within a loop", estimate.Max, maxConditionCost)
	}
	program, err := env.Program(tree, cel.EvalOptions(cel.OptOptimize), cel.CostTracking(prices), cel.OptimizeRegex(captureOptimization), cel.CostLimit(maxConditionCost))
	if err != nil {
		return nil, err
	}
	c := &condition{program: program}
	for _, reference := range tree.NativeRep().ReferenceMap() {
		// A leading dot names the variable past a local one of the same name: [1].exists(action, .action == "pull").
		switch strings.TrimPrefix(reference.Name, ".") {
		case "action":
			c.action = true
		case "resource.type":
			c.typ = true
		case "resource.name":
			c.name = true
		}
	}
	return c, nil
}

// EstimateSize implements cost.Estimator: it bounds what the estimate cannot know, everything that comes with a request.
func (prices) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if len(n.Path()) == 0 { // not from the request: its size is known, or computed from what is
		return nil
	}
	most := uint64(scope.MaxNameLength)
	switch n.Type().Kind() {
	case types.ListKind:
		most = mostGroups
	case types.MapKind:
		most = 100
	case types.StringKind, types.DynKind:
	default:
		return nil
	}
	return &cost.SizeEstimate{Max: most}
}

// facts are the values of one evaluation. What is not known is not there, and a condition that needs it fails.
type facts struct {
	q                 *question
	typ, name, action string
}

// Parent implements cel.Activation.
func (facts) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (f facts) ResolveName(name string) (any, bool) {
	switch name {
	case "user.name":
		return f.q.who.Name, true
	case "user.groups":
		return f.q.who.groups, true
	case "user.kind":
		return string(f.q.who.Kind), true
	case "claims":
		if f.q.who.Claims == nil {
			return map[string]any{}, true
		}
		return f.q.who.Claims, true
	case "request.service":
		return f.q.service, true
	case "request.ip":
		return f.q.from, f.q.from.IsValid()
	case "resource.type":
		return f.typ, true
	case "resource.name":
		return f.name, true
	case "action":
		return f.action, true
	case "now":
		return f.q.now, true
	}
	return nil, false
}

// holds tells whether a rule's condition lets it apply to an action, and whether evaluating it failed. A condition that
// cannot tell never grants: an allow rule then does not apply, a deny rule does. That is so when it fails, and when it
// names what the question leaves open: the action, when All is asked, or the name, when everything below a path is.
func (r *rule) holds(q *question, typ, name, action string) (applies, failed bool) {
	if r.when == nil {
		return true, false
	}
	if action == scope.All && r.when.action || strings.HasSuffix(name, "/"+scope.All) && r.when.name {
		return r.deny, false
	}
	// What the condition does not name makes no difference to it, and is asked once.
	asked := evaluation{rule: r}
	if r.when.action {
		asked.action = action
	}
	if r.when.typ {
		asked.typ = typ
	}
	if r.when.name {
		asked.name = name
	}
	o, known := q.evaluated[asked]
	if !known {
		o = r.when.evaluate(q, facts{q, typ, name, action})
		if q.evaluated == nil {
			q.evaluated = map[evaluation]outcome{}
		}
		q.evaluated[asked] = o
	}
	if o.failed {
		return r.deny, true
	}
	return o.holds, false
}

// evaluation is a condition and what of the question it depends on; outcome is what came of it.
type evaluation struct {
	rule              *rule
	typ, name, action string
}

type outcome struct{ holds, failed bool }

func (c *condition) evaluate(q *question, f facts) outcome {
	if q.cost > maxQuestionCost {
		return outcome{failed: true}
	}
	value, details, err := c.program.Eval(f)
	if details != nil && details.ActualCost() != nil {
		q.cost += *details.ActualCost()
	}
	result, ok := value.(types.Bool)
	if err != nil || !ok {
		return outcome{failed: true}
	}
	return outcome{holds: bool(result)}
}
