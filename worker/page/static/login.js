const told = document.getElementById("told");
document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  told.textContent = "";
  const password = document.getElementById("password");
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ password: password.value }),
    });
    if (answer.ok) return location.replace("/");
    told.textContent = (await answer.json()).problems.join("\n");
  } catch {
    told.textContent = "The worker does not answer: is it running?";
  }
  password.select();
});
