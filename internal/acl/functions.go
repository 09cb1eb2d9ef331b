package acl

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"authserver/internal/scope"
)

// Functions of conditions beyond CEL's own, for names that are put together from other names:
//
//	literal(text)             the regular expression that matches text and nothing else
//	capture(text, regex, n)   what the n-th group of the first match of regex in text holds; it fails where none matches
//
// A regular expression is the policy's own: of what comes with a request it can hold literal(…) only. Otherwise a user
// called ".*" would match everything, and one called "x{1000}x{1000}" would make every request take seconds.
const literalFunction, captureFunction, matchesFunction = "literal", "capture", "matches"

var functions = []cel.EnvOption{
	cel.Function(literalFunction, cel.Overload("literal_string", []*cel.Type{cel.StringType}, cel.StringType,
		cel.UnaryBinding(func(text ref.Val) ref.Val { return types.String(regexp.QuoteMeta(string(text.(types.String)))) }))),
	cel.Function(captureFunction, cel.Overload("capture_string_string_int", []*cel.Type{cel.StringType, cel.StringType, cel.IntType}, cel.StringType,
		cel.FunctionBinding(func(args ...ref.Val) ref.Val {
			compiled, err := regexp.Compile(string(args[1].(types.String)))
			if err != nil {
				return types.NewErr("capture: %v", err)
			}
			return capture(compiled, args)
		}))),
}

// captureOptimization compiles constant expressions once, as CEL does for matches.
var captureOptimization = &interpreter.RegexOptimization{
	Function: captureFunction, RegexIndex: 1,
	Factory: func(call interpreter.InterpretableCall, pattern string) (interpreter.InterpretableCall, error) {
		compiled, err := regexp.Compile(pattern)
		if err != nil {
			return nil, err
		}
		return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
			if _, ok := args[0].(types.String); !ok { // an error, or not known
				return args[0]
			}
			return capture(compiled, args)
		}), nil
	},
}

func capture(compiled *regexp.Regexp, args []ref.Val) ref.Val {
	groups := compiled.FindStringSubmatch(string(args[0].(types.String)))
	n, ok := args[2].(types.Int)
	if !ok || n < 1 || int64(n) >= int64(len(groups)) {
		return types.NewErr("capture: there is no group %v", args[2])
	}
	return types.String(groups[n])
}

// expression is a regular expression in a condition. Parts that come with the request stand in it as texts of the greatest length.
type expression struct {
	text     string
	constant bool
	size     uint64 // of its program, in instructions: what one byte of a text costs at most
}

// Bounds of expressions, in instructions. What is constant is compiled when it is loaded. What is not is compiled at every
// use, so its program must not be much larger than its text, as counted repetition makes it.
const (
	maxExpression = 10_000
	mostGrowth    = 2
)

// expressionOf reads the pattern argument of a call.
func expressionOf(pattern ast.Expr) (expression, error) {
	e := expression{constant: true}
	var text strings.Builder
	if !own(pattern, &text, &e.constant) {
		return e, errors.New("the regular expression holds what comes with the request; put literal(…) around it")
	}
	e.text = text.String()
	tree, err := syntax.Parse(e.text, syntax.Perl)
	if err != nil {
		return e, err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return e, err
	}
	e.size = uint64(len(program.Inst))
	if e.size > maxExpression || !e.constant && e.size > mostGrowth*uint64(len(e.text)) {
		return e, fmt.Errorf("the regular expression becomes too large (%d instructions); repeat less", e.size)
	}
	return e, nil
}

// own writes out an expression that is made of constants and literal(…), and tells whether it is.
func own(e ast.Expr, text *strings.Builder, constant *bool) bool {
	switch e.Kind() {
	case ast.LiteralKind:
		s, ok := e.AsLiteral().(types.String)
		text.WriteString(string(s))
		return ok
	case ast.CallKind:
		switch call := e.AsCall(); call.FunctionName() {
		case operators.Add:
			return own(call.Args()[0], text, constant) && own(call.Args()[1], text, constant)
		case literalFunction:
			*constant = false
			text.WriteString(strings.Repeat("x", scope.MaxNameLength))
			return true
		}
	}
	return false
}

// patternOf is the pattern argument of a call of matches or capture.
func patternOf(call ast.CallExpr) (ast.Expr, bool) {
	args := call.Args()
	switch {
	case call.FunctionName() == captureFunction && len(args) == 3:
		return args[1], true
	case call.FunctionName() == matchesFunction && len(args) > 0:
		return args[len(args)-1], true
	}
	return nil, false
}

// expressionsOf reads every regular expression of a condition.
func expressionsOf(tree *ast.AST) (prices, error) {
	p := prices{}
	var faults []error
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		pattern, ok := patternOf(e.AsCall())
		if !ok {
			return
		}
		found, err := expressionOf(pattern)
		if err != nil {
			at := tree.SourceInfo().GetStartLocation(pattern.ID())
			faults = append(faults, fmt.Errorf("line %d, column %d: %w", at.Line(), at.Column()+1, err))
		}
		if found.constant {
			p[found.text] = found.size
		}
	}))
	return p, errors.Join(faults...)
}

// prices are the sizes of constant regular expressions. They tell what a use costs, before and while a condition runs,
// in CEL's units: a byte of a text takes an instruction a fortieth of a unit; compiling a byte of an expression ten units.
type prices map[string]uint64

const compileFactor = 10

func matchPrice(text, size uint64) uint64 { return 1 + cost.SafeMultiply(text+1, size)/40 }

// CallCost implements cost.ActualCostEstimator.
func (p prices) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	var price uint64
	switch function {
	case literalFunction:
		price = 1 + cost.ActualSize(args[0])
	case matchesFunction, captureFunction:
		if len(args) < 2 {
			return nil
		}
		pattern, _ := args[1].(types.String)
		if size, constant := p[string(pattern)]; constant {
			price = matchPrice(cost.ActualSize(args[0]), size)
		} else {
			length := uint64(len(pattern))
			price = matchPrice(cost.ActualSize(args[0]), mostGrowth*length) + compileFactor*length
		}
	default:
		return nil
	}
	return &price
}

// EstimateCallCost implements cost.Estimator.
func (p prices) EstimateCallCost(function, _ string, target *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	switch function {
	case literalFunction:
		text := cost.EstimateSize(p, args[0])
		return cost.NewCallEstimate(text.MultiplyByCostFactor(1).Add(cost.FixedCostEstimate(1)), &cost.SizeEstimate{Max: cost.SafeMultiply(2, text.Max)})
	case matchesFunction, captureFunction:
		all := args
		if target != nil {
			all = append([]cost.AstNode{*target}, args...)
		}
		e, err := expressionOf(all[1].Expr())
		if err != nil {
			return nil // reported already
		}
		text := cost.EstimateSize(p, all[0])
		price := matchPrice(text.Max, e.size)
		if !e.constant {
			price += compileFactor * uint64(len(e.text))
		}
		var result *cost.SizeEstimate
		if function == captureFunction {
			result = &cost.SizeEstimate{Max: text.Max}
		}
		return cost.NewCallEstimate(cost.Estimate{Max: price}, result)
	}
	return nil
}
