package main

import "io"

func (r report) draw(out io.Writer) {}
