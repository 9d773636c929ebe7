"""A table of patterns that recognize functions, types, imports and other pieces of a program, one row per language."""

from typing import NamedTuple

from sandbox.lexer import JOINED, STRING

_IDENTIFIER = r"[^\W\d]\w*"
# The beginning of a line that continues the item above it.
GOES_ON = r"[})\]{.,]|&&|\|\||(?:else|elif|elsif|except|finally|catch|rescue|ensure|then|do|end|until|when|and|where|with)\b"
# The end of a line that continues on the next line, in languages in which indentation determines the end of an item.
_UNFINISHED = r"(?:[=,(\[{+*/&|<?\\]|<-|=>|->|\b(?:extends|and|or|not|in))$|(?:^|\n)[ \t]*@[^\n]*$"
NEVER = r"(?!)"

_ATTRIBUTES = r"(?:(?:@[\w.]+(?:\([^()]*\))?|\[\[[^\]\n]*\]\]|#?!?\[[^\]\n]*\])\s*)*"
_TYPED = (
    _ATTRIBUTES
    + r"(?:template\s*<[^{;]*?>\s*)?(?!(?:return|else|throw|new|case|using|typedef|class|struct|enum|package|import)\b)"
    r"(?:\([\w\s,<>\[\]?]+\)\s|[^\W\d])[\w:<>,\[\]&*?.!() \t\n]*?(?<=[\s&*>\])])"
    r"(?P<name>(?!(?:public|private|protected|internal|static|final|async|override|virtual|if|for|while|switch|catch)\b)\w+)\s*(?=\()"
)
_TYPED_VALUE = (
    _ATTRIBUTES + r"(?!(?:return|else|throw|case|if|for|while|using|assert)\b)"
    r"[^\W\d][\w:<>,\[\]&*?. \t\n]*[\s&*>\]](?P<name>\w+)\s*(?:\[[^\]]*\]\s*)?[=;{]"
)
_FIELDS = _ATTRIBUTES + r"(?:[a-z]+\s+)*(?:class|interface|enum|record|struct|union|delegate)\s+(?P<name>\w+)"
_SCRIPT = (
    r"(?:export\s+(?:default\s+)?|module\.exports\s*=\s*)?(?:(?:async\s+)?function\s*\*?\s*(?P<name>[\w$]+)\s*(?:<[^()]*?>)?\s*(?=\()"
    r"|(?:(?:const|let|var)\s+|(?:module\.)?exports\.)(?P<bound>[\w$]+)\b(?:\s*:[^=\n]*(?:=>[^=\n]*)?)?\s*=\s*(?:async\s*)?"
    r"(?:function\b\s*\*?\s*\w*\s*(?=\()|(?:<[^()]*?>\s*)?(?=\((?:[^()]|\([^()]*\))*\)\s*(?::[^=;]*)?=>)|(?=[\w$]+\s*=>))"
    r"|(?:(?:static|async|public|private|protected)\s+)*(?!(?:if|for|while|switch|catch|function)\b)(?P<method>[\w$]+)\s*"
    r"(?=\((?:[^()]|\([^()]*\))*\)\s*(?::[^{;]*)?\{))"
)
_SCRIPT_VALUE = r"(?:export\s+)?(?:declare\s+)?(?:const|let|var)\s+(?P<name>[\w$]+|[\[{][^=]*)"
_SCRIPT_TYPE = r"(?:export\s+(?:default\s+)?)?(?:declare\s+)?(?:abstract\s+)?(?:class|interface|type|enum|namespace)\s+(?P<name>[\w$]+)"
_SCRIPT_IMPORT = r"import\b|(?:const|let|var)\s+[\w$\s{},:]+=\s*require\s*\("
_SYMBOL = r"[^\s()\[\]{}'`,;\"" + STRING + JOINED + "]+"


class Grammar(NamedTuple):
    """Patterns for the items of one language (an item is an outermost piece of a program; see `sandbox.outline`).

    These match at the beginning of an item, and have groups for the names that the item defines:
    `function`: a function, up to its parameters. `value`: a name bound to the result of an expression.
    `type`: a type, or another item that is kept like a function. `imports`: an import.
    `first`: an item that may occur only at the beginning of a file. `main`: an entry point or a test.

    `ends`: the end of an item; empty: indentation determines the end. `unfinished`: the end of a line that continues on the next.
    `word`: a name. `shape`: how a function's body is delimited ("braces", "colon", "end", "equals", "parentheses").
    `last_word`: whether a parameter's name comes after its type.
    `names_imports`: whether an import contains the names that it binds.
    `wrapped`: whether functions are inside a class, object or module.
    """

    function: str
    value: str = NEVER
    type: str = NEVER
    imports: str = NEVER
    first: str = NEVER
    main: str = NEVER
    ends: str = ""
    unfinished: str = _UNFINISHED
    word: str = _IDENTIFIER
    shape: str = "braces"
    last_word: bool = False
    names_imports: bool = False
    wrapped: bool = False


_SEMICOLON = r"[;}]$"

GRAMMARS = {
    "py": Grammar(
        function=rf"(?:@[^\n]*\n\s*)*(?:async\s+)?def\s+(?P<name>{_IDENTIFIER})\s*(?=\()",
        value=r"(?P<name>[^\W\d]\w*(?:\s*,\s*\w+)*)\s*(?::[^=\n]+)?=(?!=)",
        type=r"(?:@[^\n]*\n\s*)*class\s+(?P<name>\w+)"
        r"|sys\.set\w+\(|(?:decimal\.)?getcontext\(|(?:\w+\.)*seed\(|threading\.stack_size\(",
        imports=r"import\b|from\b|try\s*:\s*\n\s*(?:import|from)\b",
        main=r"if\s+__name__\b",
        shape="colon",
        names_imports=True,
    ),
    "cpp": Grammar(
        function=_TYPED,
        value=_TYPED_VALUE,
        type=r"(?:template\s*<[^{;]*?>\s*)?(?:typedef\b[^;]*?(?P<name>\w+)\s*;|using\s+(?P<alias>\w+)\s*=|#\s*define\s+(?P<macro>\w+)"
        r"|(?:class|struct|enum(?:\s+class)?|union|namespace|concept)\b\s*(?P<plain>\w*)(?=[^;(]*[{;])|[^;{}=]*\boperator\b)",
        imports=r"#\s*(?:include|pragma)\b|using\s+(?:namespace\s+)?[\w:]+\s*;",
        main=r"(?:int|auto|void|signed|int32_t)\s+main\s*\(|TEST(?:_F|_CASE)?\s*\(",
        ends=r"[;}]$|^#(?:[^\n]|\\\n)*(?<!\\)$",
        last_word=True,
    ),
    "java": Grammar(
        function=_TYPED,
        value=_TYPED_VALUE,
        type=_FIELDS,
        imports=r"import\b",
        first=r"package\b",
        main=r"(?:(?:public|static|final)\s+)*void\s+main\s*\(|(?:@\w+\s+)*@Test\b",
        ends=_SEMICOLON,
        last_word=True,
        names_imports=True,
        wrapped=True,
    ),
    "php": Grammar(
        function=r"(?:(?:public|private|protected|static|final|abstract)\s+)*function\s+&?(?P<name>\w+)\s*(?=\()",
        value=r"(?:(?:public|private|protected|static|readonly|var)\s+)*(?:const\s+|\$)(?P<name>\w+)\s*=",
        type=r"(?:(?:final|abstract|readonly)\s+)*(?:class|interface|trait|enum)\s+(?P<name>\w+)"
        r"|(?:define|ini_set|setlocale|\w+_encoding|\w+_timezone_set|set_error_handler)\s*\(",
        imports=r"use\b|(?:require|include)(?:_once)?\b",
        first=r"declare\b|namespace\b",
        ends=_SEMICOLON,
        names_imports=True,
    ),
    "ts": Grammar(
        function=_SCRIPT, value=_SCRIPT_VALUE, type=_SCRIPT_TYPE, imports=_SCRIPT_IMPORT, word=r"(?:[^\W\d]|\$)[\w$]*", names_imports=True
    ),
    "cs": Grammar(
        function=_TYPED,
        value=_TYPED_VALUE,
        type=_FIELDS + r"|namespace\s+(?P<space>[\w.]+)\s*\{",
        imports=r"using\s+(?!\(|var\b)",
        first=r"namespace\s+[\w.]+\s*;",
        main=r"(?:(?:public|private|internal|static|async)\s+)*(?:void|int|Task(?:<int>)?)\s+Main\s*\(|\[(?:Test|Fact|Theory)",
        ends=_SEMICOLON,
        last_word=True,
        wrapped=True,
    ),
    "sh": Grammar(
        function=r"(?:function\s+(?P<name>[\w:.-]+)\s*(?:\(\s*\))?|(?P<bound>[\w:.-]+)\s*\(\s*\))(?=\s*\{)",
        value=r"(?:(?:declare|readonly|export|typeset)\s+(?:-\w+\s+)*)?(?P<name>\w+)(?:=|$)",
        type=r"(?:export\s+)?(?:LC_\w+|LANG)=",
        imports=r"source\s|\.\s|shopt\s",
        word=r"[\w-]+",
    ),
    "js": Grammar(
        function=_SCRIPT, value=_SCRIPT_VALUE, type=_SCRIPT_TYPE, imports=_SCRIPT_IMPORT, word=r"(?:[^\W\d]|\$)[\w$]*", names_imports=True
    ),
    "go": Grammar(
        function=r"func\s+(?:\([^)]*\)\s*)?(?P<name>\w+)\s*(?:\[[^\]]*\]\s*)?(?=\()",
        value=r"(?:var|const)\s+(?P<name>\w+|\([^)]*)",
        type=r"type\s+(?P<name>\w+|\([^)]*)|func\s+\([^)]*\)\s*(?P<method>\w+)",
        imports=r"import\b",
        first=r"package\b",
        main=r"func\s+(?:main|Test\w*|Benchmark\w*|Example\w*)\s*\(",
        names_imports=True,
    ),
    "rs": Grammar(
        function=_ATTRIBUTES
        + r"(?:pub(?:\([^)]*\))?\s+)?(?:(?:const|async|unsafe)\s+)*fn\s+(?P<name>\w+)\s*(?:<[^()]*?>(?=\s*\())?\s*(?=\()",
        value=_ATTRIBUTES + r"(?:pub(?:\([^)]*\))?\s+)?(?:const|static)\s+(?:mut\s+)?(?P<name>\w+)|(?:thread_local|lazy_static)!",
        type=_ATTRIBUTES
        + r"(?:pub(?:\([^)]*\))?\s+)?(?:(?:struct|enum|trait|type|union|mod)\s+(?P<name>\w+)|(?:unsafe\s+)?impl\b|macro_rules!\s*(?P<macro>\w+))",
        imports=r"(?:pub\s+)?(?:use|extern\s+crate)\b",
        first=r"#!\[",
        main=r"(?:async\s+)?fn\s+main\b|(?:#\[[^\]]*\]\s*)*#\[(?:cfg\(test\)|test)\]",
        ends=r"(?:[;}]|^#!\[[^\]]*\])$",
        names_imports=True,
    ),
    "rb": Grammar(
        function=r"(?:(?:private|public|module_function|memoize)\s+)?def\s+(?:self\.)?(?P<name>\w+)[?!]?",
        value=r"(?P<name>\$\w+|[A-Z]\w*)\s*(?:\|\||&&)?=(?![=~>])",
        type=r"(?:class|module)\s+(?P<name>\w+)",
        imports=r"require(?:_relative)?\b|using\b|include\b|extend\b",
        main=r"if\s+__FILE__\b|if\s+\$0\b|(?:class|module)\s+\w+\s*<\s*(?:Test::Unit|Minitest)",
        shape="end",
    ),
    "lua": Grammar(
        function=r"(?:local\s+)?(?:function\s+(?:\w+[.:])*(?P<name>\w+)\s*(?=\()|(?:\w+\.)*(?P<bound>\w+)\s*=\s*function\s*(?=\())",
        main=r"return\b",
        value=r"(?:local\s+)?(?P<name>\w+(?:\s*,\s*\w+)*)\s*(?:<\w+>\s*)?(?:=|$)|(?P<table>\w+)[.\[]",
        shape="end",
    ),
    "pl": Grammar(
        function=r"sub\s+(?P<name>\w+)\s*(?:\([^)]*\)\s*)?(?=\{)",
        value=r"(?:my|our|local|use\s+constant)\b\s*[({]?\s*[$@%]?(?P<name>\w+)|[$@%](?P<bound>\w+)",
        imports=r"use\b|require\b|no\b",
        first=r"package\s+main\b|__(?:END|DATA)__|use\s+(?:strict|warnings)\b",
        ends=_SEMICOLON,
    ),
    "r": Grammar(
        function=r"(?P<name>[\w.]+)\s*(?:<<?-|=)\s*(?:function\s*|\\)(?=\()",
        value=r"(?P<name>[\w.]+)\s*(?:<<?-|=(?!=))",
        type=rf"{STRING}+\s*(?:<-|=)|options\s*\(|set\.seed\s*\(|set(?:Class|Method|Generic|RefClass)\s*\(",
        imports=r"(?:suppress\w+\(\s*)?(?:library|require|requireNamespace|source)\s*\(",
        word=r"(?:[^\W\d]|\.)[\w.]*",
    ),
    "d": Grammar(
        function=_TYPED,
        value=r"(?:enum|alias|immutable|const|static)\s+(?P<bound>\w+)\s*=|" + _TYPED_VALUE,
        type=r"(?:class|struct|enum|interface|union|template|mixin)\s+(?P<name>\w+)\s*[({:]|alias\s+(?P<alias>\w+)\s*=",
        imports=r"(?:public\s+|static\s+)?import\b",
        first=r"module\b",
        main=r"(?:int|void|auto)\s+main\s*\(|(?:@\w+\s+)*unittest\b|version\s*\(\s*unittest",
        ends=_SEMICOLON,
        last_word=True,
    ),
    "rkt": Grammar(
        function=rf"\(define(?:/contract|/memo)?\s+(?:\(+(?P<name>{_SYMBOL})|(?P<bound>{_SYMBOL})\s+[(\[](?:case-)?(?:lambda|λ)\s*)",
        value=rf"\(define(?:-values)?\s+\(?(?P<name>{_SYMBOL})|\((?:hash-set!|set!|vector-set!)\s+(?P<bound>{_SYMBOL})",
        type=rf"\((?:struct|define-struct|define-syntax[\w-]*|define-match-expander)\s+\(?(?P<name>{_SYMBOL})",
        imports=r"\(require\b",
        main=r"\((?:module[+*]?|provide|define\s+\(main)(?=[\s)])",
        ends=r"[)\]]$",
        word=_SYMBOL,
        shape="parentheses",
    ),
    "ml": Grammar(
        function=r"let\s+(?:rec\s+)?(?P<name>[a-z_][\w']*)(?=\s*(?::[^=]*)?=\s*(?:fun\b|function\b)|\s+[^=:\s])",
        value=r"let\s+(?:rec\s+)?(?P<name>[a-z_][\w']*)",
        type=r"(?:type|module|exception|class|external)\s+(?:rec\s+|type\s+|'\w+\s+|\([^)]*\)\s*)?(?P<name>\w+)|let\s*\((?!\s*\))",
        imports=r"open\b|include\b",
        first=r"#(?:use|require|load)\b",
        main=r"let\s*(?:\(\s*\)|_|main\b)",
        word=r"[^\W\d][\w']*",
        unfinished=r"(?:[=(|;]|->|\b(?:in|then|else|begin|do|with|of))$",
        shape="equals",
    ),
    "hs": Grammar(
        function=r"(?P<name>[a-z_][\w']*)(?=\s)",
        type=r"(?:data|newtype|type|class|instance|deriving|infix[lr]?)\b(?:[^\n=]*=>)?\s*(?P<name>\w*)|\([!#$%&*+./<=>?@\\^|~:-]+\)"
        r"|(?:[a-z_][\w']*|\([^()\n]*\))\s+(?:`(?P<infix>\w+)`|(?!(?:=|::|\||->)\s)[!#$%&*+./<=>?@\\^|~:-]+)\s+\S[^\n]*=",
        imports=r"import\b",
        first=r"module\b",
        main=r"main\b",
        word=r"[^\W\d][\w']*",
        unfinished=NEVER,
        shape="equals",
    ),
    "ex": Grammar(
        function=r"(?:@(?:doc|spec|impl)\b[^\n]*(?:\n(?![ \t]*(?:@|defp?\b))[^\n]*)*\n[ \t]*)*(?:def|defp|defmacrop?)\s+(?P<name>\w+[?!]?)",
        value=r"@(?P<name>(?!moduledoc|doc|spec|impl|type)\w+)\s",
        type=r"(?:defmodule|defstruct|defguardp?|defprotocol|defimpl|defexception|@typep?)\b\s*(?P<name>[\w.]*)",
        imports=r"(?:import|alias|require|use)\b",
        first=r"@moduledoc\b|Mix\.install\b",
        main=r"ExUnit\.start|defmodule\s+\w+Test\b",
        unfinished=r"\A\s*@(?:doc|spec|impl)\b(?:(?!\bdefp?\b).)*\Z|[,|=]$|->$",
        word=r"[^\W\d]\w*",
        shape="end",
        wrapped=True,
    ),
    "scala": Grammar(
        function=r"(?:@[^\n]*\n\s*|@\w+\s+)*(?:(?:private|protected|final|override|implicit)(?:\[\w+\])?\s+)*def\s+(?P<name>\w+)\s*(?:\[[^\n=]*?\])?\s*(?=\(|:|=)",
        value=r"(?:(?:private|protected|final|implicit|lazy)(?:\[\w+\])?\s+)*(?:val|var)\s+(?P<name>\w+|\([^)]*)",
        type=r"(?:(?:private|final|sealed|abstract|case|implicit)\s+)*(?:class|object|trait|type)\s+(?P<name>\w+)",
        imports=r"import\b",
        first=r"package\b",
        main=r"def\s+main\s*\(",
        names_imports=True,
        wrapped=True,
    ),
    "clj": Grammar(
        function=rf"\((?:defn-?\s+(?:\^\S+\s+)*(?P<name>{_SYMBOL})|def\s+(?P<bound>{_SYMBOL})\s+\(fn\b)",
        value=rf"\((?:def|defonce|defmulti)\s+(?:\^\S+\s+)*(?P<name>{_SYMBOL})|\((?:swap!|reset!)\s+(?P<bound>{_SYMBOL})",
        type=rf"\((?:defrecord|deftype|defprotocol|defmacro|defmethod|declare|extend-\w+|set!)\s+(?P<name>{_SYMBOL})",
        imports=r"\((?:ns|require|import|use)(?=[\s)])",
        main=r"\((?:deftest|comment|defn-?\s+-main|in-ns)(?=[\s)])",
        ends=r"[)\]]$",
        word=_SYMBOL,
        shape="parentheses",
    ),
}  # fmt: skip
