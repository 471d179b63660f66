using System.Diagnostics;
using System.Globalization;
using Xunit.Abstractions;
using Xunit.Sdk;

namespace MicroVm.EndToEnd.Runner;

/// <summary>Collects outcomes, and writes a line for each as it comes.</summary>
/// <param name="progress">Where to.</param>
/// <param name="watch">Since the start: its seconds begin each line.</param>
internal sealed class Execution(TextWriter progress, Stopwatch watch) : LongLivedMarshalByRefObject, IMessageSink
{
    private readonly List<Outcome> _outcomes = [];

    /// <summary>In the order of their ends.</summary>
    public IReadOnlyList<Outcome> Outcomes => _outcomes;

    /// <summary>Writes how long a class took with its fixtures, whose time is no test's.</summary>
    public void ClassEnded(string name, TimeSpan duration) => WriteLine("class", duration, name);

    public bool OnMessage(IMessageSinkMessage message)
    {
        switch (message)
        {
            case ITestPassed passed:
                Add(new Outcome(passed.Test.DisplayName, OutcomeKind.Passed, Duration(passed), Output: passed.Output));
                break;
            case ITestSkipped skipped:
                Add(new Outcome(skipped.Test.DisplayName, OutcomeKind.NotExecuted, Duration(skipped), skipped.Reason));
                break;
            case ITestFailed failed:
                Add(Failure(failed.Test.DisplayName, failed, Duration(failed), failed.Output));
                break;

            // A fixture that cannot be disposed of belongs to no test.
            case ITestClassCleanupFailure cleanup:
                Add(Failure($"{cleanup.TestClass.Class.Name} (clean-up)", cleanup, TimeSpan.Zero, ""));
                break;
            case ITestCleanupFailure cleanup:
                Add(Failure($"{cleanup.Test.DisplayName} (clean-up)", cleanup, TimeSpan.Zero, ""));
                break;
            case ITestCollectionCleanupFailure cleanup:
                Add(Failure($"{cleanup.TestCollection.DisplayName} (clean-up)", cleanup, TimeSpan.Zero, ""));
                break;
            case IErrorMessage error:
                Add(Failure("the run", error, TimeSpan.Zero, ""));
                break;
        }

        return true;
    }

    private static TimeSpan Duration(ITestResultMessage result) => TimeSpan.FromSeconds((double)result.ExecutionTime);

    private static Outcome Failure(string name, IFailureInformation failure, TimeSpan duration, string output) =>
        new(name, OutcomeKind.Failed, duration, Join(failure.ExceptionTypes.Zip(failure.Messages, (type, text) => $"{type}: {text}")), Join(failure.StackTraces), output);

    private static string Join(IEnumerable<string?> texts) => string.Join("\n--- within\n", texts);

    private void Add(Outcome outcome)
    {
        lock (_outcomes)
        {
            _outcomes.Add(outcome);
            string kind = outcome.Kind == OutcomeKind.NotExecuted ? "skipped" : outcome.Kind == OutcomeKind.Failed ? "FAILED" : "passed";
            WriteLine(kind, outcome.Duration, outcome.Name);
            if (outcome.Kind != OutcomeKind.Passed)
            {
                progress.WriteLine("        " + outcome.Message.Split('\n')[0]);
                progress.Flush();
            }
        }
    }

    private void WriteLine(string kind, TimeSpan duration, string name)
    {
        lock (_outcomes)
        {
            progress.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"{watch.Elapsed.TotalSeconds,4:F0} s: {kind,-7} {duration.TotalSeconds,6:F1} s  {name}"));
            progress.Flush();
        }
    }
}
