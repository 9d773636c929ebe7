(() => {
  const form = document.getElementById("problem");
  const fields = document.getElementById("candidates");
  const said = document.getElementById("said");
  const results = document.getElementById("results");
  const buttons = [...form.querySelectorAll("button")];

  function addCandidate(text) {
    const area = element("textarea");
    area.rows = Math.min(12, Math.max(3, text.split("\n").length));
    area.value = text;
    area.spellcheck = false;
    const label = element("label", "", undefined, element("span"), area);
    const remove = element("button", "remove", "Remove");
    remove.type = "button";
    const box = element("div", "box", undefined, label, remove);
    remove.addEventListener("click", () => { box.remove(); count(); });
    fields.append(box);
    count();
    return area;
  }

  function count() {
    [...fields.children].forEach((box, at) => {
      box.querySelector("span").textContent = `Candidate ${at + 1}`;
      box.querySelector("button").setAttribute("aria-label", `Remove candidate ${at + 1}`);
    });
  }

  const texts = () => [...fields.querySelectorAll("textarea")].map((area) => area.value);
  const value = (name) => form.elements[name].value;

  async function ask(path, body, doing) {
    said.className = "";
    said.textContent = doing;
    buttons.forEach((button) => { button.disabled = true; });
    try {
      const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      const found = await answer.json().catch(() => ({}));
      if (answer.ok) return found;
      throw new Error(found.error || `HTTP ${answer.status}`);
    } finally {
      buttons.forEach((button) => { button.disabled = false; });
    }
  }

  // Each token on a ground that says how far its score is from the mean of all tokens: the further below, the redder.
  function heat(tokens, mean, widest) {
    const pre = element("pre", "heat");
    pre.tabIndex = 0;
    for (const [text, score] of tokens) {
      const far = (score - mean) / (widest || 1);
      const piece = element("span", far < 0 ? "cold" : "warm", visible(text));
      piece.style.setProperty("--far", `${Math.round(55 * Math.min(1, Math.abs(far)))}%`);
      piece.title = `${number(score)} (${score < mean ? "" : "+"}${number(score - mean)})`;
      pre.append(piece);
    }
    return pre;
  }

  function view(candidate, at, place, mean, widest) {
    const passed = candidate.verdict === "passed";
    const tone = candidate.verdict === null ? "unjudged" : passed ? "passed" : "";
    const facts = element("p", "facts", undefined, element("span", "", place === null ? "not ranked" : `#${place + 1}`),
      element("span", "", `Candidate ${at + 1}`));
    if (candidate.verdict !== null) facts.append(element("b", "", candidate.verdict.replace(/_/g, " ")));
    if (candidate.score !== null) {
      facts.append(element("span", "score", `score ${number(candidate.score)}`));
    }
    if (candidate.chance !== null) {
      facts.append(element("span", "", `chance to pass ${Math.round(100 * candidate.chance)} %`));
    }
    if (place === 0) facts.append(element("strong", "pick", "the pick"));
    const box = element("div", `candidate ${tone}`, undefined, facts);
    if (candidate.refused) return box.append(element("p", "read", `Cannot be scored: ${candidate.refused}`)), box;
    const worst = candidate.tokens.filter(([text]) => text.trim()).sort((a, b) => a[1] - b[1]).slice(0, 3)
      .filter(([, score]) => score < mean);
    box.append(heat(candidate.tokens, mean, widest));
    if (worst.length) {
      const line = element("p", "read worst", "Cost most: ");
      worst.forEach(([text, score], i) => line.append(i ? ", " : "", element("code", "", visible(text.trim())), ` ${number(score - mean)}`));
      box.append(line);
    }
    return box;
  }

  function show(found) {
    const all = found.candidates.flatMap((candidate) => candidate.tokens.map(([, score]) => score));
    const mean = all.reduce((sum, score) => sum + score, 0) / (all.length || 1);
    const widest = Math.max(...all.map((score) => Math.abs(score - mean)), 0);
    const rest = found.candidates.map((_, at) => at).filter((at) => !found.order.includes(at));
    results.replaceChildren(element("h2", "", "Result"),
      element("p", "read", `Ranked by ${found.by}. Colour: the reranker's score of a token against the mean of all tokens here; red costs, green helps.`),
      ...found.doubts.map((doubt) => element("p", "read", `${doubt[0].toUpperCase()}${doubt.slice(1)}.`)),
      ...found.order.map((at, place) => view(found.candidates[at], at, place, mean, widest)),
      ...rest.map((at) => view(found.candidates[at], at, null, mean, widest)));
    said.textContent = found.order.length ? `Candidate ${found.order[0] + 1} is picked.` : "No candidate can be ranked.";
  }

  function failed(error) {
    said.className = "failed";
    said.textContent = error.message;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = { prompt: value("prompt"), language: value("language"), tests: value("tests"), candidates: texts() };
    ask("rank", body, "Ranking \u2026").then(show).catch(failed);
  });
  document.getElementById("generate").addEventListener("click", () => {
    const body = { prompt: value("prompt"), language: value("language"), n: Number(value("n")), max_new_tokens: Number(value("max_new_tokens")) };
    ask("generate", body, "Generating \u2026").then((found) => {
      const empty = [...fields.children].filter((box) => !box.querySelector("textarea").value.trim());
      empty.forEach((box) => box.remove());
      found.candidates.forEach(addCandidate);
      said.textContent = `${countOf(found.candidates.length, "distinct candidate")} written.`;
    }).catch(failed);
  });
  document.getElementById("add").addEventListener("click", () => addCandidate("").focus());
  addCandidate("");
  addCandidate("");
})();
