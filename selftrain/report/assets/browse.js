"use strict";
// The table of problems. Texts come from a language model: they only ever enter the page as textContent.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  const PAGE = 40;

  const outcomes = {
    "all problems": () => true,
    [`${data.chosen} picks right`]: (pool) => pool.picks[data.chosen],
    [`${data.chosen} picks wrong though one passes`]: (pool) => !pool.picks[data.chosen] && pool.passed > 0,
    [`${data.chosen} right, log-probability wrong`]: (pool) => pool.picks[data.chosen] && !pool.picks.logprob,
    [`${data.chosen} wrong, log-probability right`]: (pool) => !pool.picks[data.chosen] && pool.picks.logprob,
    "no candidate passes": (pool) => pool.passed === 0,
    "all candidates pass": (pool) => pool.passed === pool.n,
  };

  function element(tag, className, text, ...children) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    made.append(...children);
    return made;
  }

  // Characters that would be invisible, or would reorder what one reads, are shown by their code.
  function visible(text) {
    return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
      (sign) => `\u27e8U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
  }

  function candidateView(candidate) {
    const passed = candidate.verdict === "passed";
    const facts = element("p", "facts", undefined, element("b", "", candidate.verdict.replace(/_/g, " ")));
    if (candidate.count > 1) facts.append(element("span", "", `\u00d7 ${candidate.count}`));
    data.rankers.forEach((ranker, i) => {
      facts.append(element("span", "", `${ranker} ${candidate.scores[i].toFixed(2)}`));
    });
    facts.append(element("span", "", `log-probability ${candidate.logprob.toFixed(2)}`));
    if (candidate.picked_by.length) facts.append(element("span", "pick", `picked by ${candidate.picked_by.join(", ")}`));
    return element("div", passed ? "candidate passed" : "candidate", undefined,
      facts, element("pre", "", visible(candidate.text)));
  }

  function problemView(problem, pool) {
    const bar = element("b");
    bar.style.width = `${100 * pool.passed / pool.n}%`;
    const rate = element("span", "rate", undefined, element("i", "", undefined, bar), `${pool.passed}/${pool.n} pass`);
    const marks = Object.entries(pool.picks).map(([way, right]) =>
      element("span", right ? "mark yes" : "mark no", `${right ? "\u2713" : "\u2717"} ${way}`));
    const summary = element("summary", "", undefined, element("span", "name", visible(problem.id)),
      element("span", "tag", problem.language), rate, ...marks);
    const view = element("details", "", undefined, summary);
    view.addEventListener("toggle", () => {
      if (view.childElementCount > 1) return;
      const by = Math.max(data.rankers.indexOf(data.chosen), 0);
      const sorted = [...pool.candidates].sort((a, b) => b.scores[by] - a.scores[by]);
      view.append(element("div", "", undefined, element("pre", "", visible(problem.prompt)), ...sorted.map(candidateView)));
    });
    return view;
  }

  let found = [];
  let shown = 0;

  function showMore() {
    const pool = form.elements.pool.value;
    list.append(...found.slice(shown, shown + PAGE).map((problem) => problemView(problem, problem.pools[pool])));
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown >= found.length;
  }

  function search() {
    const pool = form.elements.pool.value;
    const language = form.elements.language.value;
    const keep = outcomes[form.elements.outcome.value];
    const text = form.elements.text.value.toLowerCase();
    const holds = (problem) => [problem.id, problem.prompt, ...problem.pools[pool].candidates.map((c) => c.text)]
      .some((part) => part.toLowerCase().includes(text));
    found = data.problems.filter((problem) => pool in problem.pools && (!language || problem.language === language)
      && keep(problem.pools[pool]) && (!text || holds(problem)));
    document.getElementById("count").textContent = `${found.length} of ${data.problems.length} problems`;
    list.replaceChildren();
    shown = 0;
    showMore();
  }

  const options = (name, values) => form.elements[name].append(...values.map((value) => element("option", "", value)));
  options("pool", data.pools);
  options("language", data.languages);
  options("outcome", Object.keys(outcomes));
  form.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  form.hidden = false;
  search();
})();
