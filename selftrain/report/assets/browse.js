// The table of problems.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const rows = list.tBodies[0];
  const more = document.getElementById("more");
  const PAGE = 40;
  const PASSED = data.verdicts.indexOf("passed");
  const { chosen, rival } = data;
  const right = (pool, way) => pool.verdict[pool.picks[data.ways.indexOf(way)]] === PASSED;

  const outcomes = {
    all: ["all problems", () => true],
    right: [`${chosen} picks right`, (pool) => right(pool, chosen)],
    wrong: [`${chosen} picks wrong though one passes`, (pool) => !right(pool, chosen) && pool.passed > 0],
    gained: [`${chosen} right, ${rival} wrong`, (pool) => right(pool, chosen) && !right(pool, rival)],
    lost: [`${chosen} wrong, ${rival} right`, (pool) => !right(pool, chosen) && right(pool, rival)],
    none: ["no candidate passes", (pool) => pool.passed === 0],
    every: ["all candidates pass", (pool) => pool.passed === pool.n],
  };
  const orders = {
    informative: ["most informative first", (a, b) => a.dull - b.dull],
    name: ["by name", () => 0],
    passing: ["fewest passing first", (a, b) => a.passed / a.n - b.passed / b.n],
  };

  // After a change of the layout. What scrolls can be reached and scrolled from the keyboard; what does not is no stop of the Tab key.
  function arrange() {
    list.classList.toggle("narrow", list.parentElement.clientWidth < 340 + 72 * data.ways.length);
    const columns = [...list.tHead.rows[0].cells].filter((cell) => cell.offsetWidth).length;
    for (const cell of list.querySelectorAll(".detail > td")) cell.colSpan = columns;
    for (const pre of document.querySelectorAll("pre")) {
      if (pre.scrollWidth > pre.clientWidth) pre.tabIndex = 0;
      else pre.removeAttribute("tabindex");
    }
  }

  // The candidates of a problem in one pool, the best by the chosen ranker first.
  function candidates(problem, pool) {
    const by = Math.max(data.rankers.indexOf(chosen), 0);
    const found = pool.text.map((at, place) => ({
      text: problem.texts[at],
      verdict: data.verdicts[pool.verdict[place]].replace(/_/g, " "),
      passed: pool.verdict[place] === PASSED,
      count: pool.count[place],
      logprob: pool.logprob[place],
      scores: pool.scores.map((column) => column[place]),
      pickedBy: data.ways.filter((_, way) => pool.picks[way] === place),
    }));
    return found.sort((a, b) => b.scores[by] - a.scores[by]).map((one, at) => ({ ...one, rank: at + 1, score: one.scores[by] }));
  }

  function candidateView(candidate) {
    const facts = element("p", "facts", undefined, element("span", "", `#${candidate.rank}`), element("b", "", candidate.verdict));
    if (candidate.count > 1) facts.append(element("span", "", `\u00d7 ${candidate.count}`));
    data.rankers.forEach((ranker, i) => facts.append(element("span", "", `${ranker} ${number(candidate.scores[i])}`)));
    facts.append(element("span", "", `log-probability ${number(candidate.logprob)}`));
    if (candidate.pickedBy.length) facts.append(element("span", "pick", `picked by ${candidate.pickedBy.join(", ")}`));
    return element("div", candidate.passed ? "candidate passed" : "candidate", undefined,
      facts, element("pre", "", visible(candidate.text)));
  }

  // Which pieces of `a` and of `b` belong to their longest common subsequence: two arrays of booleans.
  function common(a, b) {
    const inA = a.map(() => false);
    const inB = b.map(() => false);
    if (a.length * b.length > 4e6) return [inA, inB];
    const width = b.length + 1;
    const longest = new Uint16Array((a.length + 1) * width);
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1
          : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
      }
    }
    for (let i = 0, j = 0; i < a.length && j < b.length;) {
      if (a[i] === b[j]) { inA[i++] = true; inB[j++] = true; }
      else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
      else j++;
    }
    return [inA, inB];
  }

  function marked(pieces, shared, css) {
    const pre = element("pre");
    for (let at = 0; at < pieces.length;) {
      let end = at;
      while (end < pieces.length && shared[end] === shared[at]) end++;
      const text = visible(pieces.slice(at, end).join(""));
      pre.append(shared[at] ? text : element("mark", css, text));
      at = end;
    }
    return pre;
  }

  // Two candidates side by side, with what differs marked: at first the best passing one and the failing one that scores highest.
  function comparison(found) {
    const pass = found.find((one) => one.passed);
    const fail = found.find((one) => !one.passed);
    const view = element("div", "versus");
    const choose = (name, at) => {
      const select = element("select");
      select.append(...found.map((one) => {
        const option = element("option", "", `#${one.rank} ${one.verdict}, ${number(one.score)}`);
        option.value = one.rank - 1;
        return option;
      }));
      select.value = at;
      return [element("label", "", name, select), select];
    };
    const [leftLabel, left] = choose("Left ", found.indexOf(pass));
    const [rightLabel, other] = choose("Right ", found.indexOf(fail));
    const panes = element("div", "panes");
    const draw = () => {
      const sides = [found[left.value], found[other.value]];
      const pieces = sides.map((one) => one.text.match(/\w+|\s+|[^\w\s]/gu) || []);
      const shared = common(...pieces);
      panes.replaceChildren(...sides.map((one, at) => element("div", one.passed ? "candidate passed" : "candidate", undefined,
        element("p", "facts", undefined, element("b", "", `#${one.rank} ${one.verdict}`), element("span", "", `${chosen} ${number(one.score)}`)),
        marked(pieces[at], shared[at], one.passed ? "yes" : "no"))));
      arrange();
    };
    view.addEventListener("input", draw);
    const hard = fail.score > pass.score ? "the hard negative, which scores higher" : "the failing program that scores highest";
    view.append(element("h3", "", "Side by side"),
      element("p", "read", `At first the best passing program and ${hard}, by ${chosen}. Marked: what the other does not have.`),
      element("p", "choose", undefined, leftLabel, rightLabel), panes);
    draw();
    return view;
  }

  function detail(problem, pool) {
    const found = candidates(problem, pool);
    const cell = element("td", "", undefined, element("h3", "", "Prompt"), element("pre", "", visible(problem.prompt)));
    if (pool.passed && pool.passed < pool.n) cell.append(comparison(found));
    cell.append(element("h3", "", `${found.length > 1 ? "All " : ""}${countOf(found.length, "distinct program")}, by ${chosen}`), ...found.map(candidateView));
    return element("tr", "detail", undefined, cell);
  }

  function row(problem, pool) {
    const button = element("button", "", visible(problem.id));
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    const name = element("th", "name", undefined, button);
    name.scope = "row";
    const bar = element("b");
    bar.style.width = `${100 * pool.passed / pool.n}%`;
    const rate = element("span", "rate", undefined, element("i", "", undefined, bar), `${pool.passed}/${pool.n}`);
    const view = element("tr", "problem", undefined, name, element("td", "", problem.language), element("td", "", undefined, rate),
      ...data.ways.map((way) => {
        const passes = right(pool, way);
        const cell = element("td", `mark ${passes ? "yes" : "no"}${way === chosen || way === rival ? "" : " other"}`);
        const sign = element("span", "", passes ? "\u2713" : "\u2717");
        sign.setAttribute("aria-hidden", "true");
        cell.append(sign, element("span", "aside", passes ? "right" : "wrong"));
        return cell;
      }));
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) view.nextSibling.remove();
      else view.after(detail(problem, pool));
      opened = open ? "" : problem.id;
      remember();
      arrange();
    });
    return view;
  }

  let found = [];
  let shown = 0;
  let opened = "";

  function showMore() {
    const pool = form.elements.pool.value;
    rows.append(...found.slice(shown, shown + PAGE).map((problem) => row(problem, problem.pools[pool])));
    shown = Math.min(shown + PAGE, found.length);
    more.hidden = shown >= found.length;
  }

  function search() {
    const pool = form.elements.pool.value;
    const language = form.elements.language.value;
    const keep = outcomes[form.elements.outcome.value][1];
    const order = orders[form.elements.order.value][1];
    const text = form.elements.text.value.toLowerCase();
    const holds = (problem) => [problem.id, problem.prompt, ...problem.pools[pool].text.map((at) => problem.texts[at])]
      .some((part) => part.toLowerCase().includes(text));
    found = data.problems.filter((problem) => pool in problem.pools && (!language || problem.language === language)
      && keep(problem.pools[pool]) && (!text || holds(problem)));
    found.sort((a, b) => order(a.pools[pool], b.pools[pool]));
    document.getElementById("count").textContent = `${found.length} of ${countOf(data.problems.length, "problem")}`;
    rows.replaceChildren();
    shown = 0;
    showMore();
  }

  // The filters and the open problem are in the address, behind #problems, so that a view can be sent and comes back on reload.
  const BEHIND = "#problems?";
  const fields = ["pool", "language", "outcome", "order", "text"];

  function remember() {
    const kept = new URLSearchParams();
    for (const name of fields) {
      const field = form.elements[name];
      const usual = field.options ? field.options[0].value : "";
      if (field.value !== usual) kept.set(name, field.value);
    }
    if (opened) kept.set("open", opened);
    history.replaceState(null, "", [...kept].length ? BEHIND + kept : "#problems");
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.startsWith(BEHIND) ? location.hash.slice(BEHIND.length) : "");
    for (const name of fields) {
      const field = form.elements[name];
      const value = kept.get(name) ?? "";
      if (!field.options) field.value = value;
      else field.value = [...field.options].some((option) => option.value === value) ? value : field.options[0].value;
    }
    opened = "";
    search();
    const at = found.findIndex((problem) => problem.id === kept.get("open"));
    if (at < 0) return;
    while (shown <= at) showMore();
    rows.rows[at].querySelector("button").click();
  }

  function options(name, pairs) {
    form.elements[name].append(...pairs.map(([value, label]) => {
      const option = element("option", "", label);
      option.value = value;
      return option;
    }));
  }

  options("pool", data.pools.map((name) => [name, name]));
  options("language", data.languages.map((name) => [name, name]));
  options("outcome", Object.entries(outcomes).map(([value, [label]]) => [value, label]));
  options("order", Object.entries(orders).map(([value, [label]]) => [value, label]));
  list.tHead.rows[0].append(...data.ways.map((way) => {
    const head = element("th", way === chosen || way === rival ? "way" : "way other", undefined,
      ...way.split(/(?=\+)/).map((part) => element("span", "", part)));
    head.scope = "col";
    return head;
  }));
  form.addEventListener("input", () => { opened = ""; search(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  form.hidden = false;
  list.hidden = false;
  recall();
  arrange();
  addEventListener("resize", arrange);
  addEventListener("toggle", arrange, true);
  addEventListener("hashchange", () => { if (location.hash.startsWith(BEHIND)) recall(); });
  if (location.hash.startsWith(BEHIND)) document.getElementById("problems").scrollIntoView();
})();
