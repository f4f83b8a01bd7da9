// optuna-dashboard's page keeps the trials of a study and asks for later ones only. When the server says that another
// study has this study's id now, the page is loaded again, or it would show the trials of both as one study.
(() => {
  const ask = window.fetch;
  const keys = new Map();
  window.fetch = async (...request) => {
    const answer = await ask.apply(window, request);
    const key = answer.headers.get("X-Study-Key");
    if (key !== null) {
      const path = new URL(answer.url).pathname;
      if (keys.has(path) && keys.get(path) !== key) {
        window.location.reload();
        return new Promise(() => {});
      }
      keys.set(path, key);
    }
    return answer;
  };
})();
