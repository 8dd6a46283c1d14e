// Exchanges a token for a cookie that this page cannot read. The token goes in a header, so it is in no URL,
// no history and no log.

const form = document.getElementById("form");
const token = document.getElementById("token");
const told = document.getElementById("told");

form.addEventListener("submit", async (submission) => {
  submission.preventDefault();
  told.textContent = "";
  try {
    const headers = { authorization: `Bearer ${token.value.trim()}` };
    const answer = await fetch("/dashboard/ticket", { headers, cache: "no-store" });
    if (answer.ok) {
      token.value = "";
      location.reload();
      return;
    }
    told.textContent = await answer.text();
  } catch {
    told.textContent = "This process does not answer, or the token has characters that none has.";
  }
  token.select();
});
