// What the page shows of answers; page.js asks for them. What people and models write only ever
// becomes text nodes.
"use strict";

const MOST_BARS = 10;
const percent = (share) => `${(100 * share).toFixed(1)}%`;

// Places count letters as Python does, and JavaScript counts halves of some.
const letters = (text) => Array.from(text);

// What answers look like. Each returns an element.

function bars(answer) {
  const sorted = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  const item = ([name, share], place) => {
    const fill = element("div", { className: "fill" });
    fill.style.width = percent(share);
    return element("li", { className: place ? "" : "first" },
      element("span", { textContent: name }),
      element("span", { className: "share", textContent: percent(share) }),
      element("div", { className: "track", ariaHidden: "true" }, fill));
  };
  const list = (entries, first) =>
    element("ul", { className: "bars" }, ...entries.map((entry, i) => item(entry, i + first)));
  const shown = element("div", {}, list(sorted.slice(0, MOST_BARS), 0));
  if (about.labels === "multi") {
    shown.prepend(element("p", { textContent: answer.prediction ? `Labels: ${answer.prediction.split("|").join(", ")}` : "No label." }));
  }
  const rest = sorted.slice(MOST_BARS);
  if (rest.length) {
    shown.append(element("details", {}, element("summary", { textContent: `${rest.length} more` }), list(rest, MOST_BARS)));
  }
  return shown;
}

const number = (answer) =>
  element("p", { className: "number", textContent: String(Number(answer.prediction.toPrecision(6))) });

// A text with some of its parts marked: [start, end, name].
function marked(text, parts) {
  const all = letters(text);
  const shown = element("p", { className: "text" });
  let last = 0;
  for (const [start, end, name] of parts) {
    shown.append(all.slice(last, start).join(""));
    const mark = element("mark", { textContent: all.slice(start, end).join("") });
    if (name) mark.append(element("small", { textContent: name }));
    shown.append(mark);
    last = end;
  }
  shown.append(all.slice(last).join(""));
  return shown;
}

function found(answer, asked) {
  if (answer.start === null) {
    return element("div", {}, element("p", { className: "number", textContent: "No answer" }),
      element("p", { className: "small", textContent: `${percent(answer.probability)} sure that it does not stand there.` }));
  }
  return element("div", {}, element("p", { className: "number", textContent: answer.prediction }),
    element("p", { className: "small", textContent: `${percent(answer.probability)} sure` }),
    marked(asked.context, [[answer.start, answer.end, ""]]));
}

function tagged(answer, asked) {
  const shown = element("div", {}, marked(asked.text, answer.entities.map((e) => [e.start, e.end, e.type])));
  if (!answer.entities.length) shown.append(element("p", { className: "small", textContent: "Nothing found." }));
  return shown;
}

const written = (answer) => element("p", { className: "text", textContent: answer.prediction });

function answerView(answer, asked) {
  if (about.task === "token_classification") return tagged(answer, asked);
  if (about.task === "question_answering") return found(answer, asked);
  if (about.task === "text_generation") return written(answer);
  return about.labels === "regression" ? number(answer) : bars(answer);
}

// Feedback: that an answer is right, or what would have been

function labelled(control, text) {
  return element("label", { className: "choice" }, control, text);
}

function labelCorrection(answer) {
  const names = about.class_names;
  if (about.labels === "regression") {
    const input = element("input", { type: "number", step: "any", required: true, value: answer.prediction });
    return [element("label", {}, "The right number ", input), () => ({ label: Number(input.value) })];
  }
  if (about.labels === "multi") {
    const chosen = new Set(answer.prediction ? answer.prediction.split("|").map((name) => name.trim()) : []);
    const boxes = names.map((name) => element("input", { type: "checkbox", value: name, checked: chosen.has(name) }));
    const set = element("fieldset", {}, element("legend", { textContent: "The right labels" }),
      ...boxes.map((box) => labelled(box, box.value)));
    return [set, () => ({ label: boxes.filter((box) => box.checked).map((box) => box.value) })];
  }
  const select = element("select", {}, ...names.map((name) => element("option", { value: name, textContent: name })));
  select.value = answer.prediction;
  return [element("label", {}, "The right label ", select), () => ({ label: select.value })];
}

function tagCorrection(answer, asked) {
  const boxes = answer.entities.map((e) => element("input", { type: "checkbox", checked: true }));
  const words = element("input", { type: "text", ariaLabel: "Words that were missed" });
  const kind = element("select", { ariaLabel: "What they are" },
    ...about.class_names.map((name) => element("option", { value: name, textContent: name })));
  const set = element("fieldset", {}, element("legend", { textContent: "What is right" }),
    ...boxes.map((box, i) => labelled(box, `${answer.entities[i].type}: ${answer.entities[i].text}`)),
    element("p", { className: "row" }, "Missed: ", words, kind));
  return [set, () => {
    const spans = answer.entities.filter((_, i) => boxes[i].checked).map((e) => ({ start: e.start, end: e.end, label: e.type }));
    if (words.value) {
      const [text, missed] = [letters(asked.text), letters(words.value)];
      const at = (i) => missed.every((letter, j) => text[i + j] === letter);
      const found = [...text.keys()].filter(at).map((start) => ({ start, end: start + missed.length, label: kind.value }));
      if (!found.length) throw new Error("These words do not stand in the text.");
      const free = found.find((span) => spans.every((other) => other.end <= span.start || span.end <= other.start));
      if (!free) throw new Error("These words are marked already: take the tick from what is wrong.");
      spans.push(free);
    }
    return { spans: spans.sort((a, b) => a.start - b.start) };
  }];
}

function textCorrection(said, hint, start = null) {
  const area = element("textarea", { rows: 3, value: said });
  return [element("label", {}, hint, area), () => ({ answer: area.value, start: area.value === said ? start : null })];
}

function correction(answer, asked) {
  if (about.task === "token_classification") return tagCorrection(answer, asked);
  if (about.task === "question_answering") return textCorrection(answer.prediction, "The right answer, a piece of the text; empty if there is none", answer.start);
  if (about.task === "text_generation" || about.task === "chat") return textCorrection(answer.prediction, "A better answer");
  return labelCorrection(answer);
}

// `send` takes what is right and returns what the server is to keep.
function feedbackView(answer, asked, send) {
  const box = element("div", { className: "feedback" });
  const [control, read] = correction(answer, asked);
  const right = element("button", { type: "button", textContent: "👍 Right" });
  const wrong = element("button", { type: "button", textContent: "👎 Not right", ariaExpanded: "false" });
  const save = element("button", { textContent: "Save" });
  const unknown = element("button", { type: "button", textContent: "I do not know what is right" });
  const form = element("form", { hidden: true }, control, element("p", { className: "row" }, save, unknown));
  const keep = (button, values) => busily(button, async () => {
    await askJson("feedback", send(values()));
    const thanks = element("p", { className: "thanks", textContent: "Thank you; it is kept.", tabIndex: -1 });
    box.replaceChildren(thanks);
    thanks.focus();
  });
  const asIs = read();
  right.addEventListener("click", () => keep(right, () => asIs));
  wrong.addEventListener("click", () => {
    form.hidden = !form.hidden;
    wrong.ariaExpanded = String(!form.hidden);
    if (form.hidden) return;
    form.querySelector("input, select, textarea").focus();
    form.scrollIntoView({ block: "nearest" });  // with its buttons
  });
  unknown.addEventListener("click", () => keep(unknown, () => ({ ...asIs, wrong: true })));
  form.addEventListener("submit", (event) => { event.preventDefault(); keep(save, read); });
  box.append(element("p", { className: "row" }, right, wrong), form,
    element("p", { className: "small", textContent: "What you send is kept to learn from. E-mail addresses, phone numbers and the like are taken out." }));
  return box;
}

// Why: what an answer rests on, asked for by a button

const COLOURS = { for: "0, 114, 178", against: "213, 94, 0" };
const FAINTEST = 0.03;  // of the strongest; weaker ones are left uncoloured

function shaded(passages) {
  const weights = passages.flatMap((passage) => passage.pieces.map((piece) => Math.abs(piece.weight ?? 0)));
  const most = Math.max(...weights, 1e-30);
  const piece = ({ text, weight }) => {
    const shown = element("span", { textContent: text });
    if (weight === null) {
      shown.className = "unread";
      shown.title = "not read by the model";
    } else {
      shown.title = `${weight > 0 ? "+" : ""}${Number(weight.toPrecision(3))}`;
      const strength = Math.abs(weight) / most;
      if (strength >= FAINTEST) shown.style.background = `rgba(${COLOURS[weight > 0 ? "for" : "against"]}, ${0.75 * strength})`;
    }
    return shown;
  };
  return passages.flatMap(({ name, pieces }) => [
    ...(name ? [element("p", { className: "small", textContent: name })] : []),
    element("p", { className: "text shaded", dir: "auto" }, ...pieces.map(piece))]);
}

function reasonView(reason) {
  const figure = ({ caption, png }) => element("figure", {},
    element("img", { src: `data:image/png;base64,${png}`, alt: caption }), element("figcaption", { textContent: caption }));
  const shown = element("section", {}, element("h2", { textContent: reason.title }));
  if (reason.pictures.length) shown.append(element("div", { className: "views" }, ...reason.pictures.map(figure)));
  shown.append(...shaded(reason.passages));
  if (reason.missing > 0.05) {
    shown.append(element("p", { className: "small", textContent: `A hint: the parts lack ${percent(reason.missing)} of the whole.` }));
  }
  return shown;
}

// `asks` returns the request for the explanation.
function whyView(asks) {
  const box = element("div", { className: "why" });
  const button = element("button", { type: "button", textContent: "Why?" });
  button.addEventListener("click", () => busily(button, async () => {
    button.textContent = "Looking for the reasons …";
    try {
      const found = await (await asks()).json();
      const pictures = found.reasons.some((reason) => reason.pictures.length);
      const legend = element("p", { className: "small legend", tabIndex: -1 },
        element("span", { className: "for", textContent: "Blue" }), " speaks for it, ",
        element("span", { className: "against", textContent: "orange" }), ` against it, compared with ${found.baseline}. ${pictures ? "Under Grad-CAM, bright parts speak for it. " : ""}It shows what the model used, not what is true.`);
      box.replaceChildren(legend, ...found.notes.map((note) => element("p", { textContent: note })), ...found.reasons.map(reasonView));
      legend.focus();
    } finally {
      button.textContent = "Why?";
    }
  }));
  box.append(element("p", { className: "row" }, button));
  return box;
}
