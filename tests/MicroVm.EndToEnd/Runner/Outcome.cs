namespace MicroVm.EndToEnd.Runner;

/// <summary>How a test ended, in the words of .trx files.</summary>
internal enum OutcomeKind
{
    Passed,
    Failed,
    NotExecuted,
}

/// <summary>One test that has ended.</summary>
/// <param name="Name">Its full name, with its arguments.</param>
/// <param name="Kind">How it ended.</param>
/// <param name="Duration">How long it took.</param>
/// <param name="Message">What failed, or why it was skipped.</param>
/// <param name="StackTrace">Where it failed.</param>
/// <param name="Output">What it wrote by way of xunit.</param>
internal sealed record Outcome(string Name, OutcomeKind Kind, TimeSpan Duration, string Message = "", string StackTrace = "", string Output = "");
