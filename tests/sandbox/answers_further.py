"""Test data: answers to a second problem, the words of maximal length, in every language, with difficult syntax.

The answers have classes, modules, several clauses, test libraries, brackets in strings and other difficulties. Every answer is
right. `FURTHER` has the prompt, the tests and the answers of each language.
"""

FURTHER: dict[str, tuple[str, str, tuple[str, ...]]] = {}

FURTHER["rs"] = (
"""/// Return the words of maximal length.
/// >>> longest(vec![String::from("a"), String::from("bb")])
/// vec![String::from("bb")]
fn longest(words: Vec<String>) -> Vec<String> {
""",
"""}

fn main() {
    let candidate = longest;
    assert_eq!(candidate(vec![String::from("a"), String::from("bb"), String::from("cc")]), vec![String::from("bb"), String::from("cc")]);
    assert_eq!(candidate(Vec::<String>::new()), Vec::<String>::new());
}
""",
(
"""Here's how:

```rust
use std::cmp::max;

/// Longest ones.
fn longest(mut words: Vec<String>) -> Vec<String> {
    let mut m = 0;
    for w in &words { m = max(m, w.len()); }
    words.retain(|w| w.len() == m);
    words
}

fn main() {
    println!("{:?}", longest(vec!["a".to_string()]));
}
```
""",
"""```rust
use std::collections::HashMap;

fn by_len<'a>(words: &'a [String]) -> HashMap<usize, Vec<&'a String>> {
    let mut m: HashMap<usize, Vec<&'a String>> = HashMap::new();
    for w in words {
        m.entry(w.len()).or_insert_with(Vec::new).push(w);
    }
    m
}

fn longest(words: Vec<String>) -> Vec<String>
{
    let m = by_len(&words);
    let k = m.keys().max();
    match k {
        Some(k) => m[k].iter().map(|s| s.to_string()).collect(),
        None => vec![],
    }
}
```
It's O(n).""",
"""```rust
#[derive(Debug, Default)]
struct Best { len: usize, words: Vec<String> }

impl Best {
    fn add(&mut self, w: String) {
        if w.len() > self.len { self.len = w.len(); self.words.clear(); }
        if w.len() == self.len { self.words.push(w); }
    }
}

macro_rules! best {
    () => { Best::default() };
}

fn longest(words: Vec<String>) -> Vec<String> {
    let mut b = best!();
    for w in words { b.add(w); }
    b.words
}

#[test]
fn test_longest() {
    assert_eq!(longest(vec![]), Vec::<String>::new());
}
```""",
),
)  # fmt: skip

FURTHER["go"] = (
"""package longest_test

import (
    "testing"
    "fmt"
)

// Return the words of maximal length.
// >>> longest([]string{"a", "bb"})
// []string{"bb"}
func longest(words []string) []string {
""",
"""func TestLongest(t *testing.T) {
  candidate := longest
	type test struct {
		actual   interface{}
		expected interface{}
	}
   tests := []test{
     { actual: candidate([]string{"a", "bb", "cc"}), expected: []string{"bb", "cc"} },
     { actual: candidate([]string([]string{})), expected: []string([]string{}) },
   }

	for i, tc := range tests {
		t.Run(fmt.Sprintf("test num % d", i), func(t *testing.T) {
			if fmt.Sprintf("%v", tc.actual) != fmt.Sprintf("%v", tc.expected) {
				t.Errorf("expected '%s', got '%s'", tc.expected, tc.actual)
			}
		})
	}
}
""",
(
"""```go
package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

var cache = map[string]int{}

func init() {
	cache[""] = 0
}

func size(w string) int {
	if n, ok := cache[w]; ok {
		return n
	}
	cache[w] = utf8.RuneCountInString(w)
	return cache[w]
}

func longest(words []string) (result []string) {
	best := 0
	for _, w := range words {
		n := size(strings.TrimSpace(w))
		switch {
		case n > best:
			best, result = n, []string{w}
		case n == best:
			result = append(result, w)
		}
	}
	return
}

func main() {
	fmt.Println(longest([]string{"a"}))
}
```""",
"""First the type:
```go
type item struct {
	word string
	size int
}

func (i item) better(j item) bool { return i.size > j.size }
```
and then
```go
import "sort"

func longest(words []string) []string {
	items := make([]item, 0)
	for _, w := range words {
		items = append(items, item{w, len(w)})
	}
	sort.SliceStable(items, func(a, b int) bool { return items[a].better(items[b]) })
	out := []string{}
	for _, i := range items {
		if i.size == items[0].size {
			out = append(out, i.word)
		}
	}
	return out
}
```""",
"""```go
func longest(words []string) []string {
	const bt = `a "raw" { string`
	_ = bt
	r := '{'
	_ = r
	out := []string{}
	m := Max(words...)
	for _, w := range words { if len(w) == m { out = append(out, w) } }
	return out
}

// Max is the largest size.
func Max(words ...string) int {
	m := 0
	for _, w := range words {
		if len(w) > m {
			m = len(w)
		}
	}
	return m
}

func ExampleLongest() {
	fmt.Println(longest(nil))
}
```""",
),
)  # fmt: skip

FURTHER["d"] = (
"""import std.math;
import std.typecons;
/*
Return the words of maximal length.
>>> longest(["a", "bb"])
["bb"]
*/
string[] longest(string[] words) 
""",
"""unittest
{
    alias candidate = longest;

    assert(candidate(["a", "bb", "cc"]) == ["bb", "cc"]);
    assert(candidate([]) == []);
}
void main(){}""",
(
"""```d
import std.stdio;
import std.algorithm;
import std.array;

string[] longest(string[] words) {
    if (words.length == 0) return [];
    auto m = words.map!(w => w.length).maxElement;
    return words.filter!(w => w.length == m).array;
}

void main() {
    writeln(longest(["a", "bb"]));
}
```""",
"""```d
import std.typecons;

struct Best {
    size_t size;
    string[] words;
    void opOpAssign(string op : "~")(string w) {
        if (w.length > size) { size = w.length; words = null; }
        if (w.length == size) words ~= w;
    }
}

@safe pure string[] longest(string[] words)
{
    Best b;
    foreach (w; words) { b ~= w; }
    return b.words;
}

unittest {
    assert(longest(["a"]) == ["a"]);
}
```""",
"""```d
private size_t most(in string[] words) {
    size_t m = 0;
    foreach (ref w; words) if (w.length > m) m = w.length;
    return m;
}

string[] longest(string[] list)
in (true)
{
    string[] out_;
    immutable m = most(list);
    foreach (w; list)
        if (w.length == m) out_ ~= w;
    return out_;
}
```""",
),
)  # fmt: skip

FURTHER["r"] = (
"""# Return the words of maximal length.
# >>> longest(c('a', 'bb'))
# list('bb')
longest <- function(words) {""",
"""test_humaneval <- function() {
    candidate <- longest
    if(!identical(candidate(c('a', 'bb', 'cc')), c('bb', 'cc'))){quit('no', 1)}
    if(!identical(candidate(c()), c())){quit('no', 1)}
}
test_humaneval()""",
(
"""```r
# Helper
`%len%` <- function(words, m) words[nchar(words) == m]

longest <- function(words) {
  if (length(words) == 0) return(NULL)
  words %len% max(nchar(words))
}

# Example
words <- c("a", "bb")
print(longest(words))
```""",
"""```R
longest <- function(words) if (length(words) == 0) {
  NULL
} else {
  words[nchar(words) == max(nchar(words))]
}
```""",
"""```{r}
longest = function(words, size = nchar) {
  if (is.null(words)) return(c())
  keep <- c()
  for (w in words) {
    if (size(w) == max(sapply(words, size))) keep <- c(keep, w)
  }
  return(keep)
}
stopifnot(identical(longest(c("a")), "a"))
```""",
"""```r
library(methods)

Best <- setRefClass("Best", fields = list(n = "numeric", words = "character"))

add_word <- function(b, w) {
  if (nchar(w) > b$n) { b$n <- nchar(w); b$words <- character(0) }
  if (nchar(w) == b$n) b$words <- c(b$words, w)
}

longest <- function(words) {
  b <- Best$new(n = 0, words = character(0))
  for (w in words) add_word(b, w)
  if (length(b$words) == 0) NULL else b$words
}
```""",
),
)  # fmt: skip

FURTHER["rb"] = (
"""# Return the words of maximal length.
# >>> longest.call(["a", "bb"])
# ["bb"]
def longest(words)
""",
"""require 'test/unit'
class TestHumanEval < Test::Unit::TestCase
  def test_longest
    candidate = method(:longest)
    assert_equal(["bb", "cc"], candidate.call(["a", "bb", "cc"]))
    assert_equal([], candidate.call([]))
  end
end
""",
(
"""```ruby
module Words
  MAX = 1

  def self.size(w)
    w.size
  end

  def self.longest(words)
    m = words.map { |w| size(w) }.max
    words.select { |w| size(w) == m }
  end
end

puts Words.longest(%w[a bb]).inspect
```""",
"""```ruby
Pair = Struct.new(:word, :size) do
  def fits?(m)
    size == m
  end
end

# Finds them.
#
# @param words [Array<String>]
def longest(words)
  pairs = words.map { |w| Pair.new(w, w.length) }
  best = pairs.map(&:size).max
  pairs.select { |p| p.fits?(best) }.map(&:word)
rescue NoMethodError => e
  warn "#{e.message} {"
  []
end

describe "longest" do
  it "works" do
    expect(longest(["a"])).to eq(["a"])
  end
end if false
```""",
"""```ruby
def longest(words, *rest)
  text = <<~TEXT
    end
    def longest(words)
  TEXT
  return [] if words.empty? || text.empty?

  words.group_by(&:length).max.last
end
```""",
),
)  # fmt: skip

FURTHER["lua"] = (
"""-- Return the words of maximal length.
-- >>> longest({'a', 'bb'})
-- {'bb'}
local function longest(words)
""",
"""lu = require('luaunit')

function test_humaneval()
local candidate = longest
    lu.assertEquals(candidate({'a', 'bb', 'cc'}), {'bb', 'cc'})
    lu.assertEquals(candidate({}), {})
end

os.exit(lu.LuaUnit.run())""",
(
"""```lua
local cache = {}
local size

size = function(w)
    cache[w] = cache[w] or #w
    return cache[w]
end

local function longest(words)
    local m, out = 0, {}
    for _, w in ipairs(words) do
        if size(w) > m then
            m, out = size(w), {}
        end
        if size(w) == m then table.insert(out, w) end
    end
    return out
end

-- Example
local words = {'a', 'bb'}
for _, w in ipairs(longest(words)) do
    print(w)
end
```""",
"""```lua
local Best = {}
Best.__index = Best

function Best.new()
    return setmetatable({n = 0, words = {}}, Best)
end

function Best:add(w)
    if #w > self.n then self.n, self.words = #w, {} end
    if #w == self.n then self.words[#self.words + 1] = w end
end

function longest(list)
    local b = Best.new()
    for i = 1, #list do b:add(list[i]) end
    return b.words
end

return longest
```""",
),
)  # fmt: skip

FURTHER["pl"] = (
"""# Return the words of maximal length.
# >>> longest(["a", "bb"])
# ["bb"]
sub longest {
    my($words) = @_;
""",
r"""use Test::Deep;


sub testhumaneval {
    my $candidate = \&longest;
        if(eq_deeply($candidate->(["a", "bb", "cc"]),["bb", "cc"])) {
        print "ok!" }else{
        exit 1;
        }
        if(eq_deeply($candidate->([]),[])) {
        print "ok!" }else{
        exit 1;
        }
}

testhumaneval();""",
(
r"""```perl
#!/usr/bin/env perl
use strict;
use warnings;
use List::Util qw(max);
use feature 'say';

my %size;

sub size_of {
    my $w = shift;
    return $size{$w} //= length $w;
}

sub longest {
    my ($words) = @_;
    my $m = max(0, map { size_of($_) } @$words);
    my @out = grep { $_ !~ /}"/ && size_of($_) == $m } @{$words};
    return \@out;
}

say join ",", @{ longest(["a", "bb"]) };
```""",
"""```perl
sub longest {
    my $list = shift;   # {
    my ($m, @out) = (0);
    for my $w (@$list) {
        my $n = length($w);
        if ($n > $m) { $m = $n; @out = (); }
        push @out, $w if $n == $m;
    }
    my $text = qq{a {nested} brace};
    $text =~ s/a/}/g;
    return [@out];
}
```""",
"""```perl
use feature 'signatures';
no warnings 'experimental::signatures';

sub longest($words) {
    my @s = sort { length($b) <=> length($a) } @$words;
    return [] unless @s;
    return [ grep { length($_) == length($s[0]) } @$words ];
}
```""",
),
)  # fmt: skip

FURTHER["rkt"] = (
"""#lang racket

;; Return the words of maximal length.
;; >>> (longest (list "a" "bb"))
;; (list "bb")
(define (longest words)
""",
"""(require rackunit)

(define (test-humaneval) 

  (let (( candidate longest))
    (check-within (candidate (list "a" "bb" "cc")) (list "bb" "cc") 0.001)
    (check-within (candidate (list )) (list ) 0.001)
))

(test-humaneval)""",
(
"""```racket
#lang racket

(require racket/string)

(struct best (size words) #:transparent)

;; adds ( a word
(define (add b w)
  (define n (string-length w))
  (cond
    [(> n (best-size b)) (best n (list w))]
    [(= n (best-size b)) (best n (append (best-words b) (list w)))]
    [else b]))

(define (longest words)
  (best-words (foldl (lambda (w b) (add b w)) (best 0 '()) words)))

(longest (list "a" "bb"))
(displayln "a (b")
```""",
"""```scheme
(define (longest lst)
  (define m (apply max 0 (map string-length lst)))
  (filter (λ (w) (= (string-length w) m)) lst))
```""",
"""```racket
(define/contract (longest words)
  (-> (listof string?) (listof string?))
  (let ([m (for/fold ([m 0]) ([w (in-list words)]) (max m (string-length w)))])
    (for/list ([w words] #:when (= m (string-length w))) w)))
```""",
),
)  # fmt: skip

FURTHER["ml"] = (
"""(*Return the words of maximal length.
 * >>> longest ["a"; "bb"]
 * ["bb"]
*)
let longest (words : string list) : string list =""",
"""
let assertions =
 let candidate = longest in
  (assert ((candidate ["a"; "bb"; "cc"]) = ["bb"; "cc"]));
  (assert ((candidate []) = []));
  ()
""",
(
r"""```ocaml
open Printf

exception Empty of string

type 'a best = { size : int; words : 'a list }

let empty = { size = 0; words = [] }

let add b w =
  let n = String.length w in
  if n > b.size then { size = n; words = [w] }
  else if n = b.size then { b with words = w :: b.words }
  else b

let longest (words : string list) : string list =
  let b = List.fold_left add empty words in
  List.rev b.words

let () =
  List.iter (printf "%s\n") (longest ["a"; "bb"])
```""",
"""```ocaml
let rec maximum = function
  | [] -> 0
  | w :: rest -> max (String.length w) (maximum rest)

let longest words =
let m = maximum words in
List.filter (fun w -> String.length w = m) words
;;

print_endline (String.concat "," (longest ["a"]));;
```""",
"""```ocaml
module M = Map.Make (Int)

let longest = function
  | [] -> []
  | words ->
    let add m w =
      let k = String.length w in
      M.add k (w :: (try M.find k m with Not_found -> [])) m
    in
    let m = List.fold_left add M.empty words in
    let _, found = M.max_binding m in
    List.rev found
```""",
"""```ocaml
let ( |>> ) xs f = List.map f xs

let rec longest_of m acc = function
  | [] -> List.rev acc
  | w :: rest when String.length w = m -> longest_of m (w :: acc) rest
  | _ :: rest -> longest_of m acc rest
and longest words =
  let m = List.fold_left max 0 (words |>> String.length) in
  longest_of m [] words
```""",
),
)  # fmt: skip

FURTHER["hs"] = (
"""-- Return the words of maximal length.
-- >>> (longest ["a", "bb"])
-- ["bb"]
longest :: [String] -> [String]
longest words =""",
"""
main :: IO ()
main = do
  let candidate = longest
  if candidate ["a", "bb", "cc"] == ["bb", "cc"] then pure () else error "assertion failed"
  if candidate [] == [] then pure () else error "assertion failed"
  pure ()""",
(
"""```haskell
module Longest (longest) where

import qualified Data.Map.Strict as M
import Data.List (foldl')

type Sizes = M.Map Int [String]

infixr 5 +++
(+++) :: [a] -> [a] -> [a]
xs +++ ys = xs ++ ys

class Sized a where
  size :: a -> Int

newtype W = W String

instance Sized W where
  size (W s) = length s

group' :: [String] -> Sizes
group' = foldl' step M.empty
  where
    step m w = M.insertWith (flip (+++)) (size (W w)) [w] m

longest :: [String] -> [String]
longest words = case M.lookupMax (group' words) of
  Nothing -> []
  Just (_, ws) -> ws

main :: IO ()
main = print (longest ["a"])
```""",
"""```haskell
longest :: [String] -> [String]
longest [] = []
longest ws@(w:rest)
  | null rest = [w]
  | otherwise =
      let m = maximum (map length ws)
      in  filter ((== m) . length) ws
```""",
"""```hs
longest words = let m = maximum (0 : map length words)
                    ok w = length w == m
                in filter ok words
```""",
"""```haskell
longest ::
  [String] ->
  [String]
longest words = do
  w <- words
  if length w == m then [w] else []
  where
    m = maximum (map length words)
```""",
),
)  # fmt: skip

FURTHER["ex"] = (
"""# Return the words of maximal length.
# >>> HumanEval.longest(["a", "bb"])
# ["bb"]
defmodule HumanEval do
  def longest(words) do
""",
"""ExUnit.start()

defmodule HumanEvalTest do
  use ExUnit.Case, async: true
  test "longest" do
    candidate = &HumanEval.longest/1
    assert ["bb", "cc"] == candidate.(["a", "bb", "cc"])
    assert [] == candidate.([])
  end
end
""",
(
'''```elixir
defmodule Words do
  defstruct size: 0, words: []

  import Enum, only: [reverse: 1]
  require Integer

  @typedoc "end"
  @type t :: %Words{}

  @doc """
  Adds.

      iex> 1
  """
  @spec add(String.t(), t()) :: t()
  def add(w, %Words{size: n} = b) do
    case String.length(w) do
      ^n -> %{b | words: [w | b.words]}
      k when k > n -> %Words{size: k, words: [w]}
      _ -> b
    end
  end

  def longest([]), do: []

  def longest(words) when is_list(words) do
    b = Enum.reduce(words, %__MODULE__{}, &add/2)
    reverse(b.words)
  end
end

IO.inspect(Words.longest(["a", "bb"]))
```''',
"""```elixir
def longest(list) do
  m = list |> Enum.map(&String.length/1) |> Enum.max(fn -> 0 end)
  for w <- list, String.length(w) == m, do: w
end
```""",
"""```elixir
defmodule HumanEval do
  def longest(words), do: longest(words, 0, [])

  defp longest([], _, acc), do: Enum.reverse(acc)
  defp longest([w | rest], n, acc) do
    k = String.length(w)
    cond do
      k > n -> longest(rest, k, [w])
      k == n -> longest(rest, n, [w | acc])
      true -> longest(rest, n, acc)
    end
  end
end
```""",
),
)  # fmt: skip

FURTHER["scala"] = (
"""import scala.math._
import scala.collection.mutable._
object Problem {
    // Return the words of maximal length.
    // >>> longest((List[String]("a", "bb")))
    // (List[String]("bb"))
    def longest(words : List[String]) : List[String] = {
""",
"""    }
    def main(args: Array[String]) = {
    assert(longest((List[String]("a", "bb", "cc"))).equals((List[String]("bb", "cc"))));
    assert(longest((List[String]())).equals((List[String]())));
    }

}
""",
(
"""```scala
import scala.annotation.tailrec

object Solution extends App {
  case class Best(size: Int, words: List[String])

  private val Start: Best = Best(0, Nil)

  @tailrec
  private def go(rest: List[String], best: Best): Best = rest match {
    case Nil => best
    case w :: more if w.length > best.size => go(more, Best(w.length, List(w)))
    case w :: more if w.length == best.size => go(more, best.copy(words = w :: best.words))
    case _ :: more => go(more, best)
  }

  def longest(words: List[String]): List[String] = go(words, Start).words.reverse

  println(longest(List("a", "bb")).mkString("{", ",", "}"))
}
```""",
"""```scala
def longest(list: List[String]): List[String] = {
  val m = if (list.isEmpty) 0 else list.map(_.length).max
  list.filter(_.length == m)
}
```""",
"""```scala
trait Sized {
  def size(w: String): Int = w.length
}

class Longest extends Sized {
  def longest(words: List[String]): List[String] = {
    val sizes = words.map(size)
    words.zip(sizes).collect { case (w, n) if n == sizes.max => w }
  }
}
```""",
),
)  # fmt: skip

FURTHER["clj"] = (
r"""(defn longest
  "Return the words of maximal length.
  >>> (longest [\"a\" \"bb\"])
  [\"bb\"]"
  [words]
""",
"""(require '[clojure.test :refer [deftest is run-test]])

(def candidate longest)

(deftest test-humaneval

  (is (= (candidate ["a" "bb" "cc"]) ["bb" "cc"]))
  (is (= (candidate []) []))
)

(run-test test-humaneval)""",
(
"""```clojure
(ns words.core
  (:require [clojure.string :as str]
            [clojure.test :refer [deftest is]])
  (:import (java.util ArrayList)))

(defrecord Best [size words])

(defmulti size class)
(defmethod size String [s] (count (str/trim s)))

(defn- add [^Best b w]
  (let [n (size w)]
    (cond (> n (:size b)) (->Best n [w])
          (= n (:size b)) (update b :words conj w)
          :else b)))

(defn longest [words]
  (:words (reduce add (->Best 0 []) words)))

(deftest longest-test
  (is (= ["a"] (longest ["a"]))))

(println (longest ["a" "bb"]))
```""",
"""```clj
(defn longest [coll]
  (let [m (apply max 0 (map count coll))]
    (filterv #(= m (count %)) coll)))
```""",
"""```clojure
(def longest
  (fn [words]
    (let [m (reduce max 0 (map count words))] ; (
      (vec (filter (fn [w] (= m (count w))) words)))))
```""",
),
)  # fmt: skip

FURTHER["sh"] = (
"""#!/bin/bash
# Return the words of maximal length.
#
# $1 is a space-separated list
longest() {
""",
"""}

candidate() {
    longest "$@"
}

set -e
run_test() {
    [[ $(candidate "a bb cc") = "bb cc" ]]
    [[ $(candidate "") = "" ]]
}

run_test""",
(
"""```bash
#!/bin/bash

declare -A SIZES
EMPTY=""

# Size of a word: ${#1}
size() { SIZES["$1"]=${#1}; echo "${SIZES["$1"]}"; }

longest() {
    local words=($1) m=0 out=()
    for w in "${words[@]}"; do
        n=$(size "$w")
        case "$n" in
            "$m") out+=("$w") ;;
            *) if (( n > m )); then m=$n; out=("$w"); fi ;;
        esac
    done
    [ -z "${out[*]}" ] && { echo "$EMPTY"; return 0; }
    echo "${out[*]}"
}

longest "a bb cc"
```""",
"""```sh
longest () {
  awk '{ m = 0; s = ""
    for (i = 1; i <= NF; i++) {
      if (length($i) > m) { m = length($i); s = $i }
      else if (length($i) == m) { s = s " " $i }
    }
    print s }' <<< "$1"
}
```
It's awk.""",
"""```bash
usage() {
    cat <<EOF
it's {
EOF
}
function longest() {
    [[ -n "$1" ]] || { echo; return; }
    python3 - "$1" <<'PY'
import sys
w = sys.argv[1].split()
print(" ".join(x for x in w if len(x) == max(map(len, w))))
PY
}

usage
```""",
),
)  # fmt: skip

FURTHER["cpp"] = (
"""#include<assert.h>
#include<bits/stdc++.h>
// Return the words of maximal length.
// >>> longest((std::vector<std::string>({(std::string)"a", (std::string)"bb"})))
// (std::vector<std::string>({(std::string)"bb"}))
std::vector<std::string> longest(std::vector<std::string> words) {
""",
"""}
int main() {
    auto candidate = longest;
    assert(candidate((std::vector<std::string>({(std::string)"a", (std::string)"bb", (std::string)"cc"}))) == (std::vector<std::string>({(std::string)"bb", (std::string)"cc"})));
    assert(candidate((std::vector<std::string>())) == (std::vector<std::string>()));
}
""",
(
r"""```cpp
#include <vector>
#include <string>
#include <algorithm>

using std::string;
using std::vector;

typedef vector<string> Words;
#define ALL(x) (x).begin(), \
               (x).end()

namespace detail {
struct Longer {
    bool operator()(const string& a, const string& b) const { return a.size() < b.size(); }
};
}

bool operator^(const string& a, size_t n) { return a.size() == n; }

[[nodiscard]] static inline size_t most(const Words& w)
{
    return w.empty() ? 0 : std::max_element(ALL(w), detail::Longer{})->size();
}

Words longest(const Words& words) {
    Words out;
    const size_t m = most(words);
    std::copy_if(ALL(words), std::back_inserter(out), [m](const string& s) { return s ^ m; });
    return out;
}

int main() { return 0; }
```""",
"""```c++
class Solution {
public:
    std::vector<std::string> longest(std::vector<std::string>& words) {
        std::vector<std::string> out;
        size_t m = 0;
        for (auto& w : words) m = std::max(m, w.size());
        for (auto& w : words) if (w.size() == m) out.push_back(w);
        return out;
    }
};
```""",
r"""```cpp
#include <bits/stdc++.h>
using namespace std;

size_t most(const vector<string>&);

vector<string> longest(vector<string> v) {
    auto n = most(v);
    v.erase(remove_if(v.begin(), v.end(), [n](auto& s) { return s.size() != n; }), v.end());
    return v;
}

size_t most(const vector<string>& v) {
    size_t m = 0;
    for (const auto& s : v) m = max(m, s.size());
    return m;
}

signed main() {
    ios::sync_with_stdio(false);
    for (auto& s : longest({"a", "bb"})) cout << s << "\n";
}
```""",
),
)  # fmt: skip

FURTHER["java"] = (
"""import java.util.*;
import java.lang.reflect.*;
import org.javatuples.*;
class Problem {
    // Return the words of maximal length.
    public static ArrayList<String> longest(ArrayList<String> words) {
""",
"""    }
    public static void main(String[] args) {
    assert(longest((new ArrayList<String>(Arrays.asList((String)"a", (String)"bb", (String)"cc")))).equals((new ArrayList<String>(Arrays.asList((String)"bb", (String)"cc")))));
    assert(longest((new ArrayList<String>(Arrays.asList()))).equals((new ArrayList<String>(Arrays.asList()))));
    }

}
""",
(
"""```java
import java.util.*;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import static org.junit.jupiter.api.Assertions.*;

public class Solution {
    private static final Map<Integer, List<String>> CACHE = new HashMap<>();

    static {
        CACHE.put(0, new ArrayList<>());
    }

    record Best(int size, List<String> words) { }

    @FunctionalInterface
    interface Size { int of(String s); }

    private static <T> int most(List<T> all, java.util.function.ToIntFunction<T> f) {
        int m = 0;
        for (T x : all) { m = Math.max(m, f.applyAsInt(x)); }
        return m;
    }

    public static ArrayList<String> longest(ArrayList<String> words) {
        Size size = String::length;
        CACHE.clear();
        int m = most(words, w -> size.of(w));
        Best b = new Best(m, words.stream().filter(w -> size.of(w) == m).collect(Collectors.toList()));
        return new ArrayList<>(b.words());
    }

    @Test
    void works() { assertEquals(List.of("a"), longest(List.of("a"))); }

    public static void main(String... args) {
        System.out.println("}" + longest(List.of("a")) + '{');
    }
}
```""",
"""```java
public class Longest {
    public static ArrayList<String> longest(ArrayList<String> words) throws IllegalStateException {
        ArrayList<String> out = new ArrayList<>();
        int m = Sizes.most(words);
        for (String w : words) if (w.length() == m) out.add(w);
        return out;
    }
}

public final class Sizes {
    static int most(List<String> words) {
        return words.stream().mapToInt(String::length).max().orElse(0);
    }
}
```""",
),
)  # fmt: skip

FURTHER["py"] = (
'''from typing import List


def longest(words: List[str]) -> List[str]:
    """ Return the words of maximal length.
    >>> longest(["a", "bb"])
    ["bb"]
    """
''',
"""def check(candidate):
    assert candidate(["a", "bb", "cc"]) == ["bb", "cc"]
    assert candidate([]) == []

check(longest)
""",
(
'''```python
from __future__ import annotations
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Dict, List

sys.setrecursionlimit(10_000)

@dataclass
class Best:
    size: int = 0
    words: List[str] = field(default_factory=list)

    def __iadd__(self, w: str) -> Best:
        if len(w) > self.size:
            self.size, self.words = len(w), []
        if len(w) == self.size:
            self.words.append(w)
        return self

_seen: Dict[int, int] = defaultdict(int)
for _n in range(3):
    _seen[_n] += 0

def longest(words: List[str]) -> List[str]:
    """
    Finds them.

    ```python
    longest(["a"])
    ```
    """
    best = Best()
    for w in words:
        _seen[len(w)] += 1
        best += w
    return best.words


class TestLongest(unittest.TestCase):
    def test_it(self):
        self.assertEqual(longest([]), [])


if __name__ == "__main__":
    unittest.main()
```''',
"""```python
def longest(words):
    if not words: return []
    def size(w): return len(w)
    m = max(map(size, words)); return [w for w in words
            if size(w) == m]
print(longest(input().split()))
```""",
"""```python
try:
    import numpy as np
except ImportError:
    np = None

longest = lambda words: [w for w in words if len(w) == max(map(len, words))]
assert longest(["a"]) == ["a"]
```""",
),
)  # fmt: skip

FURTHER["js"] = (
"""//Return the words of maximal length.
function longest(words){
""",
"""const assert = require('node:assert');


function test() {
  let candidate = longest;
  assert.deepEqual(candidate(["a", "bb", "cc"]),["bb", "cc"]);
  assert.deepEqual(candidate([]),[]);
}

test();""",
(
"""```js
import { strict as assert } from 'assert';
import fs, { readFileSync } from 'fs';

/**
 * @param {string[]} words
 */
export const longest = (words) => {
  const m = Math.max(0, ...words.map(({ length }) => length))
  return words.filter(w => w.length === m)
}

const input = readFileSync(0, 'utf8');
assert.deepEqual(longest(["a"]), ["a"]);
```""",
"""```javascript
const sizes = new Map()

const size = w => {
  if (!sizes.has(w)) sizes.set(w, w.replace(/["'`{]/g, 'x').length)
  return sizes.get(w)
}

module.exports = function longest(words) {
  return words
    .filter(w => words.every(v => size(v) <= size(w)))
}
```""",
"""```jsx
const longest = function* (words) { yield words; };
```
No, simply:
```js
let longest = words => words.reduce((best, w) => {
  if (w.length > (best[0] || '').length) return [w];
  return w.length === (best[0] || '').length ? [...best, w] : best;
}, []);
```""",
),
)  # fmt: skip

FURTHER["ts"] = (
"""//Return the words of maximal length.
function longest(words: string[]): string[] {
""",
"""declare var require: any;
const assert = require('node:assert');


function test() {
  let candidate = longest;
  assert.deepEqual(candidate(["a", "bb", "cc"]),["bb", "cc"]);
  assert.deepEqual(candidate([]),[]);
}

test();""",
(
"""```ts
interface Sized { size: number }
type Word = Sized & { text: string };

enum Mode { All = "all" }

const toWord = (text: string): Word => ({ text, size: text.length });

export function longest<T extends string>(words: T[]): T[] {
  const all = words.map(toWord);
  const m = all.reduce((n, w) => Math.max(n, w.size), 0);
  return words.filter((w) => toWord(w).size === m && Mode.All === "all");
}
```""",
"""```typescript
function longest(words: string[]): string[];
function longest(words: string[], least: number): string[];
function longest(words: string[], least: number = 0): string[] {
  const m = Math.max(least, ...words.map((w: string): number => w.length));
  return words.filter((w) => w.length === m);
}
```""",
),
)  # fmt: skip

FURTHER["php"] = (
"""<?php
// Return the words of maximal length.
function longest($words) {
""",
"""function candidate(...$args) {
    return longest(...$args);
}

function test(): void {
    if (candidate(array("a", "bb", "cc")) !== array("bb", "cc")) { throw new Exception("Test failed!"); }
    if (candidate(array()) !== array()) { throw new Exception("Test failed!"); }
}

test();""",
(
"""```php
<?php

declare(strict_types=1);

define('LEAST', 0);

final class Best
{
    public const NONE = [];
    private int $size = LEAST;
    /** @var string[] */
    private array $words = self::NONE;

    public function add(string $w): self
    {
        if (strlen($w) > $this->size) { $this->size = strlen($w); $this->words = []; }
        if (strlen($w) === $this->size) { $this->words[] = "{$w}"; }
        return $this;
    }

    public function words(): array { return $this->words; }
}

/**
 * @param string[] $words
 */
function longest(array $words): array
{
    $best = new Best();
    array_walk($words, fn (string $w) => $best->add($w));
    return $best->words();
}

$words = ['a', 'bb'];
foreach (longest($words) as $w) {
    echo $w, PHP_EOL;
}
?>
```""",
"""```php
<?php
function longest($list) {
    $m = $list ? max(array_map('strlen', $list)) : 0;
    return array_values(array_filter($list, function ($w) use ($m) {
        return strlen($w) === $m;
    }));
}
?>
<p>done</p>
```""",
),
)  # fmt: skip

FURTHER["cs"] = (
"""using System;
using System.Diagnostics;
using System.Collections.Generic;
class Problem {
    // Return the words of maximal length.
    public static List<string> Longest(List<string> words) {
""",
"""    }
    public static void Main(string[] args) {
    Debug.Assert(Longest((new List<string>(new string[]{(string)"a", (string)"bb", (string)"cc"}))).Equals((new List<string>(new string[]{(string)"bb", (string)"cc"}))) || Longest((new List<string>(new string[]{(string)"a", (string)"bb", (string)"cc"}))).Count == 2);
    }

}
""",
(
"""```csharp
using System.Linq;
using NUnit.Framework;

namespace Words.Core
{
    [Flags]
    public enum Mode { All = 1 }

    public struct Pair { public string Word { get; set; } public int Size; }

    public class Finder
    {
        private static readonly Dictionary<string, int> Sizes = new Dictionary<string, int>();

        private static int Size(string w)
        {
            if (!Sizes.TryGetValue(w, out var n)) { n = w.Length; Sizes[w] = n; }
            return n;
        }

        public static List<string> Longest(List<string> words) =>
            words.Where(w => Size(w) == words.Max(v => Finder.Size(v))).ToList();

        [Test]
        public void Works() { Assert.AreEqual(1, Longest(new List<string> { "a" }).Count); }
    }
}
```""",
"""```cs
public static List<string> Longest(List<string> list)
{
    var text = @"a ""quoted"" { brace";
    var m = 0;
    foreach (var w in list) { m = Math.Max(m, w.Length); }
    Console.Write($"{text.Length:D2}{{");
    return list.FindAll(w => w.Length == m);
}
```""",
),
)  # fmt: skip
