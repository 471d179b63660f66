namespace MicroVm.LifecycleBench;

/// <summary>A part of a container's life.</summary>
/// <param name="Command">create, start or delete.</param>
/// <param name="Text">What had been done at its end, in the log's words.</param>
/// <param name="Milliseconds">How long it took.</param>
/// <param name="OfVm">It is the VM's: see <see cref="Profile"/>.</param>
internal sealed record Step(string Command, string Text, double Milliseconds, bool OfVm);

/// <summary>
/// Where the time of create, start and delete goes, by the stamps of the debug log. The VM's own part is from the exec of the VMM to
/// the agent's answer that it has the container, and the agent's call that starts it: whoever started that VM and made those calls,
/// with nothing around them, would wait as long. It is taken out of the same life that it is subtracted from. The rest, from the
/// commands' spawn to their end, is the runtime's own.
/// </summary>
internal static class Profile
{
    private const string VmmRuns = "started microvm-vmm", GuestHasContainer = "the guest has the container", Created = "created";
    private const string StartAsked = "the start was asked for", GuestStarted = "the guest has started the container", Started = "started";

    internal static List<Step> Of(Life life)
    {
        List<(string Text, double At)> stamps = life.Stamps;
        int created = Find(stamps, Created), asked = Find(stamps, StartAsked), started = Find(stamps, Started);
        int vmm = stamps.FindIndex(s => s.Text.StartsWith(VmmRuns, StringComparison.Ordinal)), has = Find(stamps, GuestHasContainer);
        List<Step> steps = [];
        for (int i = 0; i <= created; i++)
        {
            string text = i == vmm ? VmmRuns : stamps[i].Text;
            steps.Add(new Step("create", text, stamps[i].At - (i == 0 ? 0 : stamps[i - 1].At), i > vmm && i <= has));
        }

        steps.Add(new Step("create", "the program's start and end", life.Create - stamps[created].At, false));
        for (int i = asked + 1; i <= started; i++)
        {
            steps.Add(new Step("start", stamps[i].Text, stamps[i].At - stamps[i - 1].At, stamps[i].Text == GuestStarted));
        }

        steps.Add(new Step("start", "the program's start and end, its call", life.Start - (stamps[started].At - stamps[asked].At), false));
        for (int i = started + 1; i < stamps.Count; i++)
        {
            steps.Add(new Step("delete", stamps[i].Text, stamps[i].At - (i == started + 1 ? 0 : stamps[i - 1].At), false));
        }

        steps.Add(new Step("delete", "the program's start and end", life.Delete - stamps[^1].At, false));
        return steps;
    }

    private static int Find(List<(string Text, double At)> stamps, string text)
    {
        int index = stamps.FindIndex(s => s.Text == text);
        return index >= 0 ? index : throw new InvalidOperationException($"the log has no line '{text}'");
    }
}
