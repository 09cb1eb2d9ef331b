package acl

import (
	"regexp"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Functions of conditions beyond CEL's own, for names that are put together from other names:
//
//	literal(text)             the regular expression that matches text and nothing else
//	capture(text, regex, n)   what the n-th group of the first match of regex in text holds; it fails where none matches
//
// Without literal, a user called ".*" in resource.name.matches(user.name + "/.*") would own every repository.
const literalFunction, captureFunction = "literal", "capture"

var functions = []cel.EnvOption{
	cel.Function(literalFunction, cel.Overload("literal_string", []*cel.Type{cel.StringType}, cel.StringType,
		cel.UnaryBinding(func(text ref.Val) ref.Val { return types.String(regexp.QuoteMeta(string(text.(types.String)))) }))),
	cel.Function(captureFunction, cel.Overload("capture_string_string_int", []*cel.Type{cel.StringType, cel.StringType, cel.IntType}, cel.StringType,
		cel.FunctionBinding(capture))),
}

func capture(args ...ref.Val) ref.Val {
	text, pattern, n := string(args[0].(types.String)), string(args[1].(types.String)), int64(args[2].(types.Int))
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return types.NewErr("capture: %v", err)
	}
	groups := compiled.FindStringSubmatch(text)
	if n < 1 || n >= int64(len(groups)) {
		return types.NewErr("capture: there is no group %d", n)
	}
	return types.String(groups[n])
}

// Costs: of literal, the bytes of its text; of capture, those of compiling the expression and of matching it, which CEL
// puts at a fortieth of the product of the lengths. A byte of an expression takes about as long to compile as ten units.
const compileFactor = 10

// CallCost implements cost.ActualCostEstimator.
func (sizes) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	var price uint64
	switch function {
	case literalFunction:
		price = 1 + cost.ActualSize(args[0])
	case captureFunction:
		text, pattern := cost.ActualSize(args[0]), cost.ActualSize(args[1])
		price = 1 + compileFactor*pattern + (text+1)*pattern/40
	default:
		return nil
	}
	return &price
}

// EstimateCallCost implements cost.Estimator.
func (s sizes) EstimateCallCost(function, _ string, _ *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	switch function {
	case literalFunction:
		text := cost.EstimateSize(s, args[0])
		return cost.NewCallEstimate(text.MultiplyByCostFactor(1).Add(cost.FixedCostEstimate(1)), &cost.SizeEstimate{Max: cost.SafeMultiply(2, text.Max)})
	case captureFunction:
		text, pattern := cost.EstimateSize(s, args[0]), cost.EstimateSize(s, args[1])
		price := pattern.MultiplyByCostFactor(compileFactor).Add(text.Add(cost.FixedSizeEstimate(1)).Multiply(pattern).MultiplyByCostFactor(1.0 / 40))
		return cost.NewCallEstimate(price.Add(cost.FixedCostEstimate(1)), &cost.SizeEstimate{Max: text.Max})
	}
	return nil
}
