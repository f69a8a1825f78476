// The page to try a run. What people and models write only ever becomes text nodes.
"use strict";

const byId = (id) => document.getElementById(id);
const MOST_BARS = 10;
const TASKS = {
  image_classification: "What is on a picture",
  text_classification: "What a text is about",
  token_classification: "Names and the like in a text",
  question_answering: "The answer to a question, from a text",
  text_generation: "A text made of a text",
  chat: "A conversation",
};
let about = null;
let token = "";

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;

// Places count letters as Python does, and JavaScript counts halves of some.
const letters = (text) => Array.from(text);

// Asking the server

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer.");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const said = problem.error?.message ?? problem.error ?? `The server says ${answer.status}.`;
  throw Object.assign(new Error(said), { status: answer.status });
}

const askJson = (path, body, options = {}) =>
  ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, ...options });

const tell = (text) => { byId("message").textContent = text; };

// Does something while the button cannot be pressed again, and says what went wrong.
async function busily(button, work) {
  tell("");
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    if (error.status === 401) return showLogin();
    if (error.name !== "AbortError") tell(error.message);
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

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
      const place = asked.text.indexOf(words.value);
      if (place < 0) throw new Error("These words do not stand in the text.");
      const start = letters(asked.text.slice(0, place)).length;
      spans.push({ start, end: start + letters(words.value).length, label: kind.value });
    }
    return { spans: spans.sort((a, b) => a.start - b.start) };
  }];
}

function textCorrection(said, hint) {
  const area = element("textarea", { rows: 3, value: said });
  return [element("label", {}, hint, area), () => ({ answer: area.value })];
}

function correction(answer, asked) {
  if (about.task === "token_classification") return tagCorrection(answer, asked);
  if (about.task === "question_answering") return textCorrection(answer.prediction, "The right answer, a piece of the text; empty if there is none");
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
    if (!form.hidden) form.querySelector("input, select, textarea").focus();
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
      const legend = element("p", { className: "small legend", tabIndex: -1 },
        element("span", { className: "for", textContent: "Blue" }), " speaks for it, ",
        element("span", { className: "against", textContent: "orange" }), ` against it, compared with ${found.baseline}. It shows what the model used, not what is true.`);
      box.replaceChildren(legend, ...found.notes.map((note) => element("p", { textContent: note })), ...found.reasons.map(reasonView));
      legend.focus();
    } finally {
      button.textContent = "Why?";
    }
  }));
  box.append(element("p", { className: "row" }, button));
  return box;
}

function submitOnEnter(event) {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  if (!byId("send").disabled) byId("ask").requestSubmit(byId("send"));
}

// Pictures and texts

function show(answer, asked, send, asks, before = []) {
  const parts = [...before, answerView(answer, asked)];
  if (about.explains) parts.push(whyView(asks));
  if (about.feedback) parts.push(feedbackView(answer, asked, send));
  byId("answer").replaceChildren(...parts);
}

function startPictures() {
  const input = element("input", { type: "file", accept: "image/*", id: "file" });
  const drop = element("label", { className: "drop", htmlFor: "file" }, input, "Drop a picture here, or choose one");
  byId("fields").append(drop);
  byId("send").hidden = true;
  let shown = "";
  let file = null;  // the last one
  const asBase64 = (of) => new Promise((done) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result.split(",")[1]));
    reader.readAsDataURL(of);
  });
  const predict = () => busily(drop, async () => {
    const mine = file;
    byId("answer").replaceChildren();
    const form = new FormData();
    form.append("file", mine);
    const post = (path) => ask(path, { method: "POST", body: form });
    const [answer] = (await (await post("predict")).json()).answers;
    const content = about.feedback ? await asBase64(mine) : "";
    if (mine !== file) return;  // another one was given meanwhile
    URL.revokeObjectURL(shown);
    shown = URL.createObjectURL(mine);
    const picture = element("figure", { className: "picture" }, element("img", { src: shown, alt: mine.name }));
    show(answer, {}, (values) => ({ picture: content, ...values }), () => post("explain"), [picture]);
  });
  const take = (files) => {
    if (!files.length) return;
    [file] = files;
    predict();
  };
  input.addEventListener("change", () => {
    take(input.files);
    input.value = "";  // so that the same one can be chosen again
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  // Wherever it is dropped: a browser would leave the page for it.
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", over);
      if (name === "drop") take(event.dataTransfer.files);
    });
  }
  return predict;
}

function startTexts() {
  const areas = about.inputs.map((name) => {
    const area = element("textarea", { id: `input-${name}`, rows: name === "question" ? 2 : 6, required: true, maxLength: about.limits.characters });
    const label = element("label", { htmlFor: area.id, textContent: name[0].toUpperCase() + name.slice(1) });
    area.addEventListener("keydown", (event) => { if (event.ctrlKey || event.metaKey) submitOnEnter(event); });
    byId("fields").append(label, area);
    return area;
  });
  return () => busily(byId("send"), async () => {
    const asked = Object.fromEntries(about.inputs.map((name, i) => [name, areas[i].value]));
    const [answer] = (await (await askJson("predict", asked)).json()).answers;
    show(answer, asked, (values) => ({ ...asked, ...values }), () => askJson("explain", asked));
  });
}

// Conversations

// Yields what comes as server-sent events, up to the end.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function startChat() {
  const area = element("textarea", { id: "input-chat", rows: 3, required: true, maxLength: about.limits.characters });
  byId("fields").append(element("label", { htmlFor: area.id, textContent: "You" }), area);
  const [log, other] = [byId("log"), byId("other")];
  let messages = [];
  let stop = null;
  log.hidden = other.hidden = false;
  const idle = () => { stop = null; other.textContent = "New conversation"; };
  idle();
  other.addEventListener("click", () => {
    if (stop) return stop.abort();
    messages = [];
    log.replaceChildren();
    area.focus();
  });
  const said = (role, text) => {
    const words = element("div", { textContent: text });
    const bubble = element("div", { className: `said ${role}` }, words);
    log.append(bubble);
    return [bubble, words];
  };
  area.addEventListener("keydown", (event) => { if (!event.shiftKey) submitOnEnter(event); });
  const judged = (bubble, asked, answer) => {
    messages = [...asked, { role: "assistant", content: answer }];
    const all = messages;
    if (about.explains && answer.trim()) bubble.append(whyView(() => askJson("explain", { messages: all })));
    if (about.feedback) {
      const send = ({ answer: better }) => ({ messages: [...asked, { role: "assistant", content: better }] });
      bubble.append(feedbackView({ prediction: answer }, {}, send));
    }
  };
  return () => busily(byId("send"), async () => {
    const text = area.value;
    const asked = [...messages, { role: "user", content: text }];
    stop = new AbortController();
    other.textContent = "Stop";
    const [question] = said("user", text);
    const [bubble, words] = said("assistant", "");
    words.setAttribute("aria-busy", "true");
    bubble.scrollIntoView({ block: "nearest" });
    area.value = "";
    let answer = "";
    let answering = null;
    try {
      const body = { model: about.name, messages: asked, stream: true };
      answering = await askJson("v1/chat/completions", body, { signal: stop.signal });
      for await (const event of events(answering.body)) {
        answer += event.choices[0]?.delta.content ?? "";
        words.textContent = answer;
        bubble.scrollIntoView({ block: "nearest" });
      }
    } finally {
      idle();
      area.focus();
      words.removeAttribute("aria-busy");
      if (answering) {
        judged(bubble, asked, answer);
      } else {
        question.remove();
        bubble.remove();
        area.value = text;
      }
    }
  });
}

// Beginning

function showLogin() {
  byId("ask").hidden = true;
  byId("login").hidden = false;
  tell(token ? "This is not the token." : "");
  byId("token").focus();
}

async function start() {
  try {
    about = await (await ask("about")).json();
  } catch (error) {
    if (error.status === 401) return showLogin();
    const loading = error.status === 503;
    byId("what").textContent = loading ? "The model is loading" : "";
    byId("what").ariaBusy = String(loading);
    tell(loading ? "" : error.message);
    if (loading) setTimeout(start, 1000);
    return;
  }
  tell("");
  byId("what").ariaBusy = "false";
  byId("login").hidden = true;
  document.title = byId("name").textContent = about.name;
  byId("what").textContent = `${TASKS[about.task] ?? about.task}.`;
  const send = { image_classification: startPictures, chat: startChat }[about.task] ?? startTexts;
  byId("fields").replaceChildren();
  const submit = send();
  byId("ask").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  byId("ask").hidden = false;
  byId("fields").querySelector("input, textarea").focus();
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  start();
});
start();
