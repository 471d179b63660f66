using System.Reflection;
using Xunit.Abstractions;
using Xunit.Sdk;

namespace MicroVm.EndToEnd.Runner;

/// <summary>
/// Runs the suite within this process: <c>dotnet MicroVm.EndToEnd.dll RESULTS.trx [NAME|NAME...]</c> runs the tests whose full name holds
/// one of the names. `dotnet test` does the same by two processes that talk, of which an emulated processor compiles more than of the tests.
/// </summary>
internal static class Program
{
    private static int Main(string[] args)
    {
        if (args.Length is < 1 or > 2)
        {
            Console.Error.WriteLine("usage: MicroVm.EndToEnd RESULTS.trx [NAME|NAME...]");
            return 2;
        }

        string[] names = args.Length > 1 ? args[1].Split('|', StringSplitOptions.RemoveEmptyEntries) : [];
        Assembly assembly = typeof(Program).Assembly;
        using TestFramework framework = new XunitTestFramework(new NullMessageSink());
        using ITestFrameworkDiscoverer discoverer = framework.GetDiscoverer(Reflector.Wrap(assembly));
        using Discovery discovery = new();
        discoverer.Find(includeSourceInformation: false, discovery, new Options());
        List<ITestCase> cases = [.. discovery.Wait().Where(c => names.Length == 0 || names.Any(n => FullName(c).Contains(n, StringComparison.Ordinal)))];
        if (cases.Count == 0)
        {
            Console.Error.WriteLine($"no test's name holds {args[1]}");
            return 2;
        }

        Options options = new();
        options.SetValue("xunit.execution.MaxParallelThreads", 2);
        using ITestFrameworkExecutor executor = framework.GetExecutor(assembly.GetName());
        using Execution execution = new(cases.Count, Console.Out);
        executor.RunTests(cases, execution, options);
        execution.Wait();
        TrxFile.Write(args[0], execution.Outcomes);
        int failed = execution.Outcomes.Count(o => o.Kind == OutcomeKind.Failed);
        int skipped = execution.Outcomes.Count(o => o.Kind == OutcomeKind.NotExecuted);
        Console.WriteLine($"{execution.Outcomes.Count - failed - skipped} passed, {failed} failed, {skipped} skipped");
        return failed == 0 ? 0 : 1;
    }

    private static string FullName(ITestCase test) => $"{test.TestMethod.TestClass.Class.Name}.{test.TestMethod.Method.Name}";
}
