// Checks logs of ring0 against checkpoints that were kept, with nothing of ring0: notes by
// golang.org/x/mod/sumdb/note, the tree by golang.org/x/mod/sumdb/tlog. `ring0 bench tamper` builds
// it with the sources that Go's own toolchain carries.
//
// One JSON object a line in: {"key", "anchors": [note], "entries": [base64], "receipts": [...]};
// one word a line out: `ok`, or `found` and why.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type receipt struct {
	Index int64    `json:"index"`
	Proof []string `json:"proof"`
	Entry []byte   `json:"entry"`
	Note  string   `json:"note"`
}

type question struct {
	Key      string    `json:"key"`
	Anchors  []string  `json:"anchors"`
	Entries  [][]byte  `json:"entries"`
	Receipts []receipt `json:"receipts"`
}

type tree struct {
	size int64
	root tlog.Hash
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked question
		if err := json.Unmarshal(line, &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := check(&asked); err != nil {
			fmt.Fprintf(out, "found %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Fprintln(out, "ok")
		}
		out.Flush()
	}
}

func check(asked *question) error {
	verifier, err := note.NewVerifier(asked.Key)
	if err != nil {
		return err
	}
	known := note.VerifierList(verifier)
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, at := range indexes {
			if at >= int64(len(stored)) {
				return nil, fmt.Errorf("the log is too short")
			}
			found[i] = stored[at]
		}
		return found, nil
	})
	for i, entry := range asked.Entries {
		hashes, err := tlog.StoredHashes(int64(i), entry, reader)
		if err != nil {
			return err
		}
		stored = append(stored, hashes...)
	}
	size := int64(len(asked.Entries))
	var before tree
	for _, anchor := range asked.Anchors {
		said, err := open(anchor, known)
		if err != nil {
			return err
		}
		if said.size > size {
			return fmt.Errorf("%d entries, %d were signed", size, said.size)
		}
		root, err := tlog.TreeHash(said.size, reader)
		if err != nil {
			return err
		}
		if root != said.root {
			return fmt.Errorf("the first %d entries are not those that were signed", said.size)
		}
		if before.size > 0 && before.size <= said.size {
			proof, err := tlog.ProveTree(said.size, before.size, reader)
			if err != nil {
				return err
			}
			if err := tlog.CheckTree(proof, said.size, said.root, before.size, before.root); err != nil {
				return err
			}
		}
		before = said
	}
	for _, one := range asked.Receipts {
		if err := checkReceipt(&one, known); err != nil {
			return err
		}
	}
	return nil
}

func checkReceipt(one *receipt, known note.Verifiers) error {
	said, err := open(one.Note, known)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, step := range one.Proof {
		hash, err := tlog.ParseHash(step)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	return tlog.CheckRecord(proof, said.size, said.root, one.Index, tlog.RecordHash(one.Entry))
}

func open(text string, known note.Verifiers) (tree, error) {
	opened, err := note.Open([]byte(text), known)
	if err != nil {
		return tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		return tree{}, fmt.Errorf("a note that is no checkpoint")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tree{}, err
	}
	raw, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(raw) != tlog.HashSize {
		return tree{}, fmt.Errorf("a root that is none")
	}
	var found tree
	found.size = size
	copy(found.root[:], raw)
	return found, nil
}
