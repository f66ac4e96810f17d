// Asks for what is live again every two seconds, not on hidden tabs, and says so while nobody answers.
(() => {
  "use strict";
  const EVERY_MS = 2000;
  let answeredAt = new Date();

  const lookAgain = () => {
    if (!document.hidden) document.body.dispatchEvent(new Event("look-again"));
  };

  const note = (isAway) => {
    if (!isAway) answeredAt = new Date();
    document.getElementById("away-since").textContent = `${answeredAt.toISOString().slice(11, 19)} UTC`;
    document.getElementById("away").hidden = !isAway;
  };

  document.addEventListener("htmx:after:request", ({ detail }) => {
    const { status } = detail.ctx.response;
    if (status === 404) location.reload(); // what was shown here is gone
    note(status >= 400);
  });
  document.addEventListener("htmx:error", () => note(true));
  document.addEventListener("visibilitychange", lookAgain);
  document.addEventListener("focusin", ({ target }) => {
    if (target.readOnly) target.select(); // a link to copy
  });
  setInterval(lookAgain, EVERY_MS);
})();
