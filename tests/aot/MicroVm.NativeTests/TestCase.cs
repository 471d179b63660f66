using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using MicroVm.EndToEnd.Runner;
using Xunit;
using Xunit.Abstractions;

namespace MicroVm.NativeTests;

/// <summary>A test with its arguments.</summary>
internal sealed class TestCase(MethodInfo method, object?[] arguments, string? skip)
{
    // Cannot run in a native program, by no fault of what they test.
    private static readonly Dictionary<string, string> Left = new()
    {
        ["Sha256Tests.EveryLengthAroundABlocksEnd"] = "it compares with the library's SHA-256, which loads OpenSSL, and with it a second libc, into a static program",
        ["LibcAbiTests.Structs_have_the_headers_sizes_and_offsets"] = "it takes the sizes of structs by reflection",
        ["SpecDocumentTests.EveryMemberOfTheModelIsRead"] = "it makes the model's collections by reflection",
    };

    private string Name => $"{method.DeclaringType!.FullName}.{method.Name}{(arguments.Length == 0 ? "" : $"({string.Join(", ", arguments.Select(Text))})")}";

    /// <summary>Runs it on an object of its own, as xunit does.</summary>
    internal Outcome Run()
    {
        if ((skip ?? Left.GetValueOrDefault($"{method.DeclaringType!.Name}.{method.Name}")) is { } reason)
        {
            return new Outcome(Name, OutcomeKind.NotExecuted, TimeSpan.Zero, reason);
        }

        Stopwatch watch = Stopwatch.StartNew();
        try
        {
            object? instance = method.IsStatic ? null : Make(method.DeclaringType!);
            try
            {
                _ = method.Invoke(instance, Converted());
            }
            finally
            {
                (instance as IDisposable)?.Dispose();
            }

            return new Outcome(Name, OutcomeKind.Passed, watch.Elapsed);
        }
        catch (Exception e)
        {
            Exception cause = e is TargetInvocationException { InnerException: { } inner } ? inner : e;
            return cause is SkipException || IsOfTheFramework(cause)
                ? new Outcome(Name, OutcomeKind.NotExecuted, watch.Elapsed, cause is SkipException ? cause.Message : $"the test framework makes code at run time: {cause.GetBaseException().Message}")
                : new Outcome(Name, OutcomeKind.Failed, watch.Elapsed, $"{cause.GetType().FullName}: {cause.Message}", cause.ToString());
        }
    }

    // A class may ask for a place for its output.
    private static object? Make(Type type) =>
        type.GetConstructor([typeof(ITestOutputHelper)]) is { } constructor ? constructor.Invoke([new ConsoleOutput()]) : Activator.CreateInstance(type);

    // xunit's assertions on collections and FsCheck's generators are made for each type by reflection; what the compiler did not foresee is not there.
    private static bool IsOfTheFramework(Exception cause) => cause.GetBaseException() is var last
        && ((last is NotSupportedException && (last.Message.StartsWith("'Xunit.", StringComparison.Ordinal) || last.Message.StartsWith("'FsCheck.", StringComparison.Ordinal)
                || last.Message.StartsWith("'Microsoft.FSharp.", StringComparison.Ordinal)))
            || last.Message.StartsWith("No instances found on type FsCheck.", StringComparison.Ordinal));

    // As C# and xunit convert them: constants to the parameter's type of number, the rest to a params array.
    private object?[] Converted()
    {
        ParameterInfo[] parameters = method.GetParameters();
        object?[] values = arguments;
        if (parameters.Length > 0 && parameters[^1].IsDefined(typeof(ParamArrayAttribute)) && !(values.Length == parameters.Length && values[^1] is Array))
        {
            object?[] rest = values[(parameters.Length - 1)..];
            Array packed = parameters[^1].ParameterType == typeof(string[]) ? new string[rest.Length] : throw new NotSupportedException($"params of {parameters[^1].ParameterType}");
            Array.Copy(rest, packed, rest.Length);
            values = [.. values[..(parameters.Length - 1)], packed];
        }

        return [.. values.Select((v, i) => v is int && parameters[i].ParameterType is { IsPrimitive: true } type ? Convert.ChangeType(v, type, CultureInfo.InvariantCulture) : v)];
    }

    private static string Text(object? value) => value switch
    {
        null => "null",
        string text => $"\"{text}\"",
        _ => value.ToString() ?? "",
    };
}
