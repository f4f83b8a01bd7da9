// Buttons that steer a search, on the pages of a study. The server adds this script only where changes are allowed.
(() => {
  const page = /^\/dashboard\/studies\/(\d+)/;
  const style = `
    :host { position: fixed; right: 24px; bottom: 24px; z-index: 1300; font: 14px Roboto, sans-serif; }
    [hidden], :host([hidden]) { display: none; }
    button, input, select { font: inherit; padding: 6px 10px; border: 1px solid #888; border-radius: 4px; }
    button { background: #1976d2; border-color: #1976d2; color: #fff; cursor: pointer; }
    button:disabled { background: #888; border-color: #888; cursor: default; }
    dialog { width: 560px; max-width: 90vw; padding: 20px; border: 1px solid #888; border-radius: 8px; }
    h2, h3, p { margin: 0 0 10px; } h2 { font-size: 18px; } h3 { font-size: 15px; }
    output:not(:empty) { padding-bottom: 10px; }
    form, section { padding: 12px 0; border-top: 1px solid #ccc; }
    label:not([hidden]) { display: flex; gap: 10px; align-items: center; margin-bottom: 8px; }
    label span { flex: 0 0 110px; } label input, label select { flex: 1; min-width: 0; }
    li { display: flex; gap: 10px; margin-bottom: 6px; } li span { flex: 1; overflow-wrap: anywhere; }
    ul { list-style: none; margin: 0; padding: 0; } #close { float: right; }
    output { display: block; white-space: pre-wrap; overflow-wrap: anywhere; } output.error { color: #b00020; }`;
  const panel = `
    <button id="open" type="button">Steer this search</button>
    <dialog aria-label="Steer this search">
      <button id="close" type="button" aria-label="Close">×</button>
      <h2>Steer <span id="study"></span></h2>
      <output role="status"></output>
      <form id="try">
        <h3>Try a config</h3>
        <label><span>Values</span><input name="values" autocomplete="off"></label>
        <label><span>All others</span><select name="others"></select></label>
        <label id="of-trial" hidden><span>Trial</span><input name="like" type="number" min="0"></label>
        <button>Queue it</button>
      </form>
      <section>
        <h3>Stop the search</h3>
        <p id="workers"></p>
        <button id="stop" type="button">Stop after the epochs</button>
        <button id="now" type="button">Stop now</button>
      </section>
      <form id="exclude">
        <h3>Exclude a trial</h3>
        <label><span>Trial</span><input name="trial" type="number" min="0" required></label>
        <label><span>Reason</span><input name="reason" maxlength="500" autocomplete="off"></label>
        <button>Exclude it</button>
      </form>
      <ul id="excluded"></ul>
    </dialog>`;
  let host = null;
  let study = null; // id of the study that the buttons are for

  const find = (selector) => host.shadowRoot.querySelector(selector);
  const number = (text) => (text === "" ? null : Number(text));

  const ask = async (action, content) => {
    const request = content && {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    };
    const answer = await fetch(`/api/studies/${study}/steering${action}`, request);
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.reason);
    return told;
  };

  const tell = (text, failed) => {
    const output = find("output");
    output.textContent = text;
    output.className = failed ? "error" : "";
  };

  const show = async () => {
    const state = await ask("");
    find("#study").textContent = state.study;
    find("[name=values]").placeholder = `NAME=VALUE …, of ${state.parameters.join(", ")}`;
    const others = [["", "chosen by the sampler"], ["trial", "those of a trial"]];
    for (const name of state.presets) others.push([`preset ${name}`, `those of the preset ${name}`]);
    find("[name=others]").replaceChildren(...others.map(([value, text]) => new Option(text, value)));
    find("#of-trial").hidden = true;
    const workers = state.workers.length ? `Workers: ${state.workers.join(", ")}.` : "No search of this study runs.";
    find("#workers").textContent = state.stop ? `${workers} It was ${state.stop}.` : workers;
    find("#stop").disabled = find("#now").disabled = !state.workers.length;
    const rows = Object.entries(state.excluded).map(([trial, line]) => {
      const row = document.createElement("li");
      const text = row.appendChild(document.createElement("span"));
      const button = row.appendChild(document.createElement("button"));
      text.textContent = line;
      button.textContent = "Bring it back";
      button.setAttribute("aria-label", `Bring trial ${trial} back`);
      button.onclick = () => act("/exclude", { trial: Number(trial), undo: true });
      return row;
    });
    find("#excluded").replaceChildren(...rows);
  };

  const act = async (action, content, form) => {
    try {
      const { lines } = await ask(action, content);
      form?.reset();
      await show();
      tell(lines.join("\n"), false);
    } catch (error) {
      tell(error.message, true);
    }
  };

  const build = () => {
    host = document.createElement("div");
    host.attachShadow({ mode: "open" }).innerHTML = `<style>${style}</style>${panel}`;
    document.body.append(host);
    const dialog = find("dialog");
    find("#open").onclick = () => {
      tell("", false);
      show().catch((error) => tell(error.message, true));
      dialog.showModal();
    };
    find("#close").onclick = () => dialog.close();
    find("[name=others]").onchange = (event) => {
      find("#of-trial").hidden = event.target.value !== "trial";
    };
    find("#try").onsubmit = (event) => {
      event.preventDefault();
      const { values, others, like } = event.target.elements;
      const preset = others.value.startsWith("preset ") ? others.value.slice("preset ".length) : "";
      const trial = others.value === "trial" ? number(like.value) : null;
      act("/try", { values: values.value, preset, like: trial }, event.target);
    };
    find("#stop").onclick = () => act("/stop", { now: false });
    find("#now").onclick = () => act("/stop", { now: true });
    find("#exclude").onsubmit = (event) => {
      event.preventDefault();
      const { trial, reason } = event.target.elements;
      act("/exclude", { trial: number(trial.value), reason: reason.value }, event.target);
    };
  };

  const look = () => {
    const found = page.exec(window.location.pathname);
    const now = found && found[1];
    if (now === study) return;
    study = now;
    if (host === null) build();
    host.hidden = study === null;
    find("dialog").close();
  };
  window.addEventListener("DOMContentLoaded", () => setInterval(look, 300)); // pages change without being loaded
})();
