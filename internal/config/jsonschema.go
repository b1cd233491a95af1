package config

import (
	"encoding/json"
	"fmt"
)

// schemaID names the JSON Schema: where the tree has it.
const schemaID = "https://raw.githubusercontent.com/quorate/quorate/main/deploy/quorate.schema.json"

// Patterns of texts. They are what a text must at least look like: editors say so while it is
// typed, and what more is wrong with it Parse says.
const (
	patternName     = `^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$`
	patternNodeName = `^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$`
	patternPath     = `^/.`
	patternDuration = `^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*$`
	patternAddrPort = `^(\[[0-9A-Fa-f:.]+(%.+)?\]|[0-9.]+):[0-9]{1,5}$`
	patternVIP      = `^[0-9A-Fa-f:.]+/[0-9]{1,3}$`
	patternNetwork  = `^([0-9A-Fa-f:.]+/[0-9]{1,3}|default)$`
	patternAddress  = `^[0-9A-Fa-f:.]+$`
	patternDevice   = `^[^/: \t]{1,15}$`
	patternURL      = `^https?://.`
	patternHostPort = `^.+:[0-9]{1,5}$`
)

// patterns are the kinds that are texts of a certain look.
var patterns = map[kind]string{
	kindName: patternName, kindNodeName: patternNodeName, kindPath: patternPath, kindAddrPort: patternAddrPort, kindVIP: patternVIP,
	kindNetwork: patternNetwork, kindAddress: patternAddress, kindDevice: patternDevice, kindURL: patternURL, kindHostPort: patternHostPort,
}

// object is a JSON object.
type object = map[string]any

// JSONSchema is the JSON Schema (draft 2020-12) of the file, for editors. Whatever Parse
// accepts is valid by it; not all that is valid by it is accepted, since bounds between
// keys and of durations are not in it.
func JSONSchema() []byte {
	s := topKeys.schema()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = schemaID
	s["title"] = "quorate configuration"
	s["description"] = "A configuration file of quorate, or one for quorate apply, which has only vips, checks and hooks."
	s["required"] = []string{"vips"}
	s["if"] = object{"properties": object{"election": object{"const": ElectVRRP.String()}}, "required": []string{"election"}}
	s["then"] = withoutCluster()
	needed := object{}
	for _, k := range topKeys.keys {
		if k.required && k.name != "vips" {
			needed[k.name] = []string{"cluster", "peers", "key_file"}
		}
	}
	s["else"] = object{"dependentRequired": needed}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil { // maps, lists, texts and numbers
		panic(fmt.Sprintf("config: the JSON Schema: %v", err))
	}
	return append(b, '\n')
}

// withoutCluster refuses what is not for election: vrrp.
func withoutCluster() object {
	refused := func(s *section) object {
		out := object{}
		for _, k := range s.keys {
			if k.cluster {
				out[k.name] = false
			}
		}
		return out
	}
	group, top := refused(groupKeys), refused(topKeys)
	group["vrrp"] = object{"properties": refused(vrrpKeys)}
	top["vips"] = object{"additionalProperties": object{"properties": group, "required": []string{"vrrp"}}}
	return object{"properties": top}
}

// schema is that of the mapping.
func (s *section) schema() object {
	properties, required := object{}, []string{}
	for _, k := range s.keys {
		properties[k.name] = k.schema()
		if k.required && s != topKeys {
			required = append(required, k.name)
		}
	}
	out := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		out["required"] = required
	}
	switch s {
	case checkKeys:
		var one []object
		for _, name := range checkKinds {
			one = append(one, object{"required": []string{name}})
		}
		out["oneOf"] = one
	case routeKeys:
		out["anyOf"] = []object{{"required": []string{"via"}}, {"required": []string{"interface"}}}
	case ruleKeys:
		out["anyOf"] = []object{{"required": []string{"from"}}, {"required": []string{"to"}}, {"required": []string{"interface"}}, {"required": []string{"mark"}}}
	}
	return out
}

// schema is that of the key's value.
func (k *key) schema() object {
	var single object
	switch {
	case k.kind == 0:
		single = k.in.schema()
	case k.form == program:
		single = object{"type": "array", "items": object{"type": "string"}, "minItems": 1, "maxItems": maxArgs}
	default:
		single = k.scalar()
	}
	if k.in != nil && k.kind != 0 {
		single = object{"anyOf": []object{single, k.in.schema()}}
	}
	out := single
	switch k.form {
	case list:
		out = object{"type": "array", "items": single}
		if k.required {
			out["minItems"] = 1
		}
	case byName:
		names := patternName
		if k.in == nil {
			names = patternNodeName
		}
		out = object{"type": "object", "additionalProperties": single, "propertyNames": object{"pattern": names}}
		if k.required {
			out["minProperties"] = 1
		}
	}
	if k.name == "priority" && k.form == one && k.kind == kindInteger { // of vrrp: with election: vrrp a number up to 255, or one by node
		number := object{"type": "integer", "minimum": k.least, "maximum": 255}
		out = object{"anyOf": []object{number, {"type": "object", "additionalProperties": number}}}
	}
	out["description"] = k.about()
	return out
}

// scalar is the schema of one value.
func (k *key) scalar() object {
	text := object{"type": "string"}
	if p, ok := patterns[k.kind]; ok {
		text["pattern"] = p
	}
	number := object{"type": "integer", "minimum": k.least, "maximum": k.most}
	duration := object{"type": "string", "pattern": patternDuration}
	truth := object{"type": "boolean"}
	zero := object{"const": 0}
	switch k.kind {
	case kindWord:
		var words []any
		for _, w := range k.words() {
			words = append(words, w)
			if len(w) == 1 { // a number to YAML, unless in quotes
				words = append(words, int(w[0]-'0'))
			}
		}
		return object{"enum": words}
	case kindUser:
		return object{"type": []string{"string", "integer"}}
	case kindSecret:
		return object{"type": []string{"string", "number", "boolean"}}
	case kindInteger, kindUint32, kindMark:
		return number
	case kindDuration:
		if k.name == "refresh" {
			return object{"anyOf": []object{duration, zero}}
		}
		return duration
	case kindBool:
		return truth
	case kindPreempt:
		return object{"anyOf": []object{truth, duration, zero}}
	case kindStatus:
		return object{"anyOf": []object{number, {"type": "array", "items": number, "minItems": 2, "maxItems": 2}}}
	case kindAddrPort:
		if k.name == "http" { // or empty: none
			return object{"anyOf": []object{text, {"const": ""}}}
		}
	}
	return text
}
