// The page to try a run. What people and models write only ever becomes text nodes.
"use strict";

const byId = (id) => document.getElementById(id);
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
  document.onpaste = (event) => take(event.clipboardData.files);
  // Wherever it is dropped: a browser would leave the page for it.
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    document[`on${name}`] = (event) => {
      event.preventDefault();
      drop.classList.toggle("over", over);
      if (name === "drop") take(event.dataTransfer.files);
    };
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
      words.removeAttribute("aria-busy");
      if (answering) {
        judged(bubble, asked, answer);
      } else {
        question.remove();
        bubble.remove();
        area.value = text;
      }
      area.focus();
      byId("ask").scrollIntoView({ block: "nearest" });  // what came above has pushed it down
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
    return tell(error.message);
  }
  tell("");
  byId("login").hidden = true;
  document.title = byId("name").textContent = about.name;
  byId("what").ariaBusy = String(!about.ready);
  if (!about.ready) {
    byId("what").textContent = "The model is loading";
    setTimeout(start, 500);
    return;
  }
  byId("what").textContent = `${TASKS[about.task] ?? about.task}.`;
  const send = { image_classification: startPictures, chat: startChat }[about.task] ?? startTexts;
  byId("fields").replaceChildren();
  const submit = send();
  byId("ask").onsubmit = (event) => { event.preventDefault(); submit(); };
  byId("ask").hidden = false;
  if (about.explains) askJson("explain/ready", {}).catch(() => {});  // before somebody asks why
  byId("fields").querySelector("input, textarea").focus();
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  start();
});
start();
