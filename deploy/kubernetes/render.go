// Renders the chart of deploy/helm the way Helm, which Debian does not have, does: text/template
// with sprig, numbers of values as float64, templates in the order of their names. Of Helm's own
// functions only what the chart uses. Printed as a stream of YAML documents.
//
//	render [-name R] [-namespace N] [-notes] CHART [VALUES…]   later files go over earlier ones
//
// Debian: golang-go golang-github-masterminds-sprig-dev golang-gopkg-yaml.v3-dev
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"gopkg.in/yaml.v3"
)

type values = map[string]interface{}

type files string

func (chart files) Get(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(chart), name))
	return string(text), err
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func asHelmReads(value interface{}) interface{} {
	switch v := value.(type) {
	case int:
		return float64(v)
	case values:
		for key := range v {
			v[key] = asHelmReads(v[key])
		}
	case []interface{}:
		for i := range v {
			v[i] = asHelmReads(v[i])
		}
	}
	return value
}

func read(path string) values {
	text, err := os.ReadFile(path)
	check(err)
	var v values
	check(yaml.Unmarshal(text, &v))
	asHelmReads(v)
	return v
}

func merge(into, from values) {
	for key, value := range from {
		below, isMap := value.(values)
		if old, wasMap := into[key].(values); isMap && wasMap {
			merge(old, below)
		} else {
			into[key] = value
		}
	}
}

func toYaml(value interface{}) (string, error) {
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	err := encoder.Encode(value)
	return strings.TrimSuffix(text.String(), "\n"), err
}

func main() {
	name := flag.String("name", "egressd", "name of the release")
	namespace := flag.String("namespace", "egressd", "namespace of the release")
	notes := flag.Bool("notes", false, "what an installation prints, instead of manifests")
	flag.Parse()
	chart := flag.Arg(0)

	of := read(filepath.Join(chart, "values.yaml"))
	for _, path := range flag.Args()[1:] {
		merge(of, read(path))
	}
	about := values{}
	for key, value := range read(filepath.Join(chart, "Chart.yaml")) {
		about[strings.ToUpper(key[:1])+key[1:]] = value
	}
	data := values{
		"Values":  of,
		"Chart":   about,
		"Files":   files(chart),
		"Release": values{"Name": *name, "Namespace": *namespace, "Service": "Helm"},
	}

	all := template.New("chart").Option("missingkey=zero").Funcs(sprig.TxtFuncMap())
	all.Funcs(template.FuncMap{
		"toYaml": toYaml,
		"include": func(name string, data interface{}) (string, error) {
			var text strings.Builder
			err := all.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
	})
	_, err := all.ParseGlob(filepath.Join(chart, "templates", "*"))
	check(err)
	pattern := "*.yaml"
	if *notes {
		pattern = "NOTES.txt"
	}
	paths, err := filepath.Glob(filepath.Join(chart, "templates", pattern))
	check(err)
	for _, path := range paths {
		var text bytes.Buffer
		check(all.ExecuteTemplate(&text, filepath.Base(path), data))
		body := strings.Trim(text.String(), "\n")
		if body == "" {
			continue
		}
		if !*notes && !strings.HasPrefix(body, "---") {
			fmt.Println("---")
		}
		fmt.Println(body)
	}
}
